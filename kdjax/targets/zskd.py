"""Zero-shot distillation (ZSKD): soft labels from a classifier's weights."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import l2_normalize, promote, tempered_log_softmax
from kdjax.core.types import Array


def _unit_range(x: Array, axis: tuple[int, ...]) -> Array:
    """`x` scaled to [0, 1] along the axes; 0 where all is equal."""
    low, high = jnp.min(x, axis, keepdims=True), jnp.max(x, axis, keepdims=True)
    flat = high == low
    return jnp.where(flat, 0, (x - low) / jnp.where(flat, 1, high - low))


def class_similarity(weights: Array) -> Array:
    """ZSKD class similarity: cosines between a classifier's weights.

    The cosines between the columns of the last layer, scaled so that the least is 0
    and the largest, the diagonal, is 1.

    Args:
        weights: `[features, classes]` of the last layer.

    Returns:
        `[classes, classes]`, symmetric, at least float32.

    Raises:
        ValueError: if the weights are empty, not of rank 2 or not floating.

    Example:
        >>> weights = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> print(class_similarity(weights).round(4))
        [[1.     0.     0.7071]
         [0.     1.     0.7071]
         [0.7071 0.7071 1.    ]]

    Reference:
        Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", 2019,
        arXiv 1905.08114.
    """
    checks.floating("weights", weights)
    checks.rank("weights", weights, 2)
    checks.not_empty("weights", weights)
    unit = l2_normalize(promote(weights), 0)
    cosine = jnp.matmul(unit.T, unit, precision=lax.Precision.HIGHEST)
    return _unit_range(cosine, (0, 1))


def impression_concentration(
    similarity: Array, *, beta: float | Array = 1.0, eps: float | Array = 1e-4
) -> Array:
    """ZSKD: Dirichlet concentrations of the soft labels of every class.

    Row c, scaled to [0, 1], times `beta`, plus `eps`: a small `beta` makes soft labels
    that are nearly hard, a large one labels near the shares of the row. (The released
    code, which draws for `beta` 1 and 0.1, scales the rows to [0, 1] once more after
    `beta`, so that there both are what `beta = 1` is here.)

    Args:
        similarity: `[classes, classes]`, see `class_similarity`.
        beta: a scalar above 0.
        eps: a scalar above 0.

    Returns:
        `[classes, classes]`, above 0: row c for the class c.

    Raises:
        ValueError: if the similarity is empty, not square or not floating, or an option
            is not above 0.

    Example:
        >>> print(impression_concentration(jnp.array([[1.0, 0.2], [0.2, 1.0]])))
        [[1.0001e+00 1.0000e-04]
         [1.0000e-04 1.0001e+00]]

    Reference:
        Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", 2019,
        arXiv 1905.08114.
    """
    checks.floating("similarity", similarity)
    checks.rank("similarity", similarity, 2)
    checks.not_empty("similarity", similarity)
    checks.shape("similarity", similarity, (similarity.shape[0],) * 2)
    checks.positive("beta", beta)
    checks.positive("eps", eps)
    rows = _unit_range(promote(similarity), (1,))
    beta, eps = (jnp.asarray(x, rows.dtype) for x in (beta, eps))
    return beta * rows + eps


def sample_soft_labels(key: Array, concentration: Array) -> Array:
    """ZSKD: soft labels from Dirichlet distributions, as log-probabilities.

    Drawn and normalized in log space: concentrations of 1e-4 give probabilities that
    no float holds.

    Fit an image to such a label `log y` with `policy_distillation(logits, log_y,
    temperature=1.0, student_temperature=20.0)`, `logits` the teacher's (the same
    gradient as the cross-entropy), and distill with `softmax_kl` at `T = 20`.

    Args:
        key: a random key.
        concentration: `[..., classes]`, above 0, for example
            `impression_concentration(similarity)[labels]`.

    Returns:
        The same shape, at least float32: finite log-probabilities.

    Raises:
        ValueError: if the concentrations are empty, not floating, or not above 0.

    Example:
        >>> log_y = sample_soft_labels(jax.random.key(0), jnp.array([[5.0, 1e-4]]))
        >>> print(f"{jnp.exp(log_y).sum():.4f}", log_y[0, 0] > log_y[0, 1])
        1.0000 True

    Reference:
        Nayak et al., "Zero-Shot Knowledge Distillation in Deep Networks", 2019,
        arXiv 1905.08114.
    """
    checks.floating("concentration", concentration)
    checks.rank("concentration", concentration, 1, at_least=True)
    checks.not_empty("concentration", concentration)
    checks.holds(
        "concentration",
        lambda np, x: (x > 0) & (x < np.inf),
        "finite numbers above 0",
        concentration,
    )
    concentration = promote(concentration)
    return tempered_log_softmax(
        jax.random.loggamma(key, concentration, concentration.shape)
    )
