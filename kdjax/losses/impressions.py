"""What to aim at where there is no data: soft labels and activations to sample.

Soft labels come from the teacher's last weights (ZSKD), activations from statistics
that were kept of the data. Both are then targets that made-up inputs are fitted to.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import selected
from kdjax.core.numerics import (
    l2_normalize,
    tempered_log_softmax,
    widen,
    widen_together,
)
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array

SAMPLE_FORMS = ("described", "released")
RECONSTRUCTION_CONVENTIONS = ("all", "top")


def _unit_range(x: Array, axis: tuple[int, ...]) -> Array:
    """`x` scaled to [0, 1] along the axes; 0 where all is equal."""
    low, high = jnp.min(x, axis, keepdims=True), jnp.max(x, axis, keepdims=True)
    flat = high == low
    return jnp.where(flat, 0, (x - low) / jnp.where(flat, 1, high - low))


def class_similarity(weights: Array) -> Array:
    """How alike a classifier holds its classes to be, from its weights alone.

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
    unit = l2_normalize(widen(weights), 0)
    cosine = jnp.matmul(unit.T, unit, precision=lax.Precision.HIGHEST)
    return _unit_range(cosine, (0, 1))


def impression_concentration(
    similarity: Array, *, beta: float | Array = 1.0, eps: float | Array = 1e-4
) -> Array:
    """Dirichlet concentrations of the soft labels of every class.

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
        ValueError: if the similarity is empty, not square or not floating, or a knob
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
    rows = _unit_range(widen(similarity), (1,))
    beta, eps = (jnp.asarray(x, rows.dtype) for x in (beta, eps))
    return beta * rows + eps


def sample_soft_labels(key: Array, concentration: Array) -> Array:
    """Soft labels from Dirichlet distributions, as log-probabilities.

    Drawn and normalised in log space: concentrations of 1e-4 give probabilities that
    no float holds.

    Fit an image to such a label `log y` with `policy_kl(logits, log_y,
    temperature=1.0, student_temperature=20.0)`, `logits` the teacher's (the same
    gradient as the cross-entropy), and distil with `softmax_kl` at `T = 20`.

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
    concentration = widen(concentration)
    return tempered_log_softmax(
        jax.random.loggamma(key, concentration, concentration.shape)
    )


def sample_activations(
    key: Array,
    mean: Array,
    covariance: Array,
    *,
    count: int,
    form: str = "described",
    jitter: float | Array = 1e-6,
) -> Array:
    """Activations drawn from the normal distribution whose statistics were kept.

    `"described"`: `mean + L g` with `L` the Cholesky factor of the covariance, and `g`
    standard normal: draws with that covariance. Kept from fewer examples than there
    are channels, it is singular, and rounding makes it worse by some part of its
    largest eigenvalue; so `jitter` times its trace is added to its diagonal. (To
    variances of independent channels: `jitter` times their mean.)
    `"released"`: `mean + covariance g`, as the authors' code has it, whose draws have
    the covariance squared. The default is the first.

    Args:
        key: a random key.
        mean: `[channels]`.
        covariance: `[channels, channels]`, or `[channels]` variances of independent
            channels.
        count: how many to draw, at least 1.
        form: `"described"` or `"released"`.
        jitter: a scalar above 0, relative as said (what is added is at least 1e-30);
            of no effect on `"released"`.

    Returns:
        `[count, channels]`, at least float32.

    Raises:
        ValueError: if shapes do not fit or are empty, a dtype is not floating, the
            form is unknown, or a number is not above 0.

    Example:
        >>> draws = sample_activations(
        ...     jax.random.key(0), jnp.zeros(2), jnp.array([4.0, 0.0]), count=1000
        ... )
        >>> print(draws.shape, 1.8 < draws[:, 0].std() < 2.2)
        (1000, 2) True

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535.
    """
    checks.one_of("form", form, SAMPLE_FORMS)
    checks.count("count", count)
    checks.positive("jitter", jitter)
    checks.floating("mean", mean)
    checks.rank("mean", mean, 1)
    checks.not_empty("mean", mean)
    checks.floating("covariance", covariance)
    channels = mean.shape[0]
    checks.shape("covariance", covariance, (channels,) * (covariance.ndim or 2))
    mean, factor = widen_together(mean, covariance)
    noise = jax.random.normal(key, (count, channels), mean.dtype)
    scale = jnp.mean(factor) if factor.ndim == 1 else jnp.trace(factor)
    extra = jnp.maximum(jnp.asarray(jitter, mean.dtype) * scale, 1e-30)
    if factor.ndim == 1:
        factor = factor if form == "released" else jnp.sqrt(factor + extra)
        return mean[None] + factor[None] * noise
    if form == "described":
        factor = jnp.linalg.cholesky(
            factor + extra * jnp.eye(channels, dtype=mean.dtype)
        )
    moved = jnp.matmul(noise, factor.T, precision=lax.Precision.HIGHEST)
    return mean[None] + moved


def _mirrored(np: Any, adjacency: Any) -> Any:
    """Which entries are those across the diagonal, but for rounding."""
    return np.abs(adjacency - adjacency.T) <= 1e-4 * np.max(adjacency)


def graph_fourier_basis(adjacency: Array, *, modes: int | None = None) -> Array:
    """The smoothest patterns on a graph of a layer's neurons.

    The eigenvectors of the Laplacian `L = diag(A 1) - A` with the smallest
    eigenvalues, in rising order: `activations @ basis` are the graph Fourier
    coefficients. With as many modes as neurons nothing is lost. Eigenvectors of equal
    eigenvalues and all signs are a choice of the solver; squared distances between
    coefficients do not depend on it, where no group of equal ones is cut.

    Which graph is meant is nowhere described (the released code leaves the spectral
    modes open); the size of the correlations between activations is one.

    Args:
        adjacency: `[C, C]`, symmetric and not negative, taken as a constant. The
            diagonal is of no effect.
        modes: how many; all C by default.

    Returns:
        `[C, modes]` with orthonormal columns, at least float32.

    Raises:
        ValueError: if the adjacency is empty, not square, not floating, negative or
            not symmetric, or `modes` is not in [1, C].

    Example:
        >>> chain = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> print(jnp.abs(graph_fourier_basis(chain, modes=1).T).round(3))
        [[0.577 0.577 0.577]]

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535; Shuman et al., "The Emerging Field of Signal
        Processing on Graphs", 2013, arXiv 1211.0053.
    """
    checks.floating("adjacency", adjacency)
    checks.rank("adjacency", adjacency, 2)
    checks.not_empty("adjacency", adjacency)
    neurons = adjacency.shape[0]
    checks.shape("adjacency", adjacency, (neurons, neurons))
    checks.count("modes", neurons if modes is None else modes, most=neurons)
    finite = "finite values of at least 0"
    checks.holds(
        "adjacency", lambda np, a: np.isfinite(a) & (a >= 0), finite, adjacency
    )
    checks.holds("adjacency", _mirrored, "a symmetric matrix", adjacency)
    adjacency = lax.stop_gradient(widen(adjacency))
    laplacian = jnp.diag(jnp.sum(adjacency, axis=1)) - adjacency
    return jnp.linalg.eigh(laplacian)[1][:, :modes]


def activation_reconstruction(
    features: Array,
    targets: Array,
    *,
    convention: str = "top",
    basis: Array | None = None,
    where: Array | None = None,
) -> Array:
    """How far the activations of made-up inputs are from those aimed at.

    `"top"`: `1/C sum_c (relu(f_c) - relu(t_c))^2`, for the last layer alone.
    `"all"`: that divided by C again, to be summed over all layers: with the released
    code, a layer counts less the larger it is. The default is `"top"`.

    Where a fixed dropout mask was drawn with the targets, give it as `where`. The
    spectral modes compare `relu(f) @ basis` and `relu(t) @ basis`, K coefficients in
    place of C activations: of one layer (`"all"`), or of two layers side by side.

    Args:
        features: `[batch, ...]`, a layer of the teacher on the inputs in the making.
        targets: the same shape; see `sample_activations`.
        convention: `"top"` or `"all"`.
        basis: `[C, K]` over the last axis; see `graph_fourier_basis`.
        where: bool, broadcastable to the features; the entries that take part. With a
            basis the others count as activations of 0.

    Returns:
        `[batch]`, one value per input in squared units of the features, at least
        float32. The inputs minimise the mean, with weight 1.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, the basis does not fit, or the convention is unknown.

    Example:
        >>> features, targets = jnp.array([[1.0, -5.0]]), jnp.array([[3.0, -1.0]])
        >>> print(activation_reconstruction(features, targets))
        [2.]

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535.
    """
    checks.one_of("convention", convention, RECONSTRUCTION_CONVENTIONS)
    checks.floating("features", features)
    checks.floating("targets", targets)
    checks.same_shape("targets", targets, "features", features)
    checks.rank("features", features, 2, at_least=True)
    checks.not_empty("features", features)
    checks.mask("where", where, features.shape)
    features, targets = widen_together(features, targets)
    keep = None if where is None else jnp.broadcast_to(where, features.shape)
    features, targets = (selected(x, keep) for x in (features, targets))
    # NaN is not <= 0, and so is kept.
    gap = jnp.where(features <= 0, 0, features) - jnp.where(targets <= 0, 0, targets)
    if basis is not None:
        checks.floating("basis", basis)
        checks.rank("basis", basis, 2)
        checks.not_empty("basis", basis)
        checks.shape("basis", basis, (gap.shape[-1], basis.shape[1]))
        gap, basis = widen_together(gap, basis)
        gap, keep = jnp.matmul(gap, basis, precision=lax.Precision.HIGHEST), None
    rest = range(1, gap.ndim)
    value = masked_mean(jnp.square(gap), rest, keep)
    return value / masked_count(gap, rest, keep) if convention == "all" else value
