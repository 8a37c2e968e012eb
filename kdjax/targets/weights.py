"""Weights and masks of examples, from predictions."""

import jax.numpy as jnp
import numpy as np

from kdjax.core import checks
from kdjax.core.logits import check_pair
from kdjax.core.numerics import promote, tempered_log_softmax
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array


def _check_where(where: Array | None, rows: int) -> None:
    if where is not None:
        checks.mask("where", where, (rows,))
        checks.shape("where", where, (rows,))


def confidence_weights(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """Example weights (CWTM): the teacher's confidence, with mean 1.

    `N m_i / sum_j m_j` with `m_i` the largest of `softmax(teacher_logits)`. Multiply
    them with the cross-entropies of the labels: the part of distillation that is no
    dark knowledge. They mean the global batch.

    Args:
        teacher_logits: `[N, classes]` of the global batch, before any softmax.
        axis: the axis of the classes.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, at least float32, with mean 1 over the examples that take part.

    Raises:
        ValueError: if the logits are empty, not of rank 2 or not floating, or the
            mask does not fit.

    Example:
        >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6]]))
        >>> print(f"{confidence_weights(logits)[0]:.4f}")
        1.2000

    Reference:
        Furlanello et al., "Born-Again Neural Networks", 2018, arXiv 1805.04770.
    """
    checks.floating("teacher_logits", teacher_logits)
    checks.rank("teacher_logits", teacher_logits, 2)
    checks.not_empty("teacher_logits", teacher_logits)
    axis = checks.axis(axis, "teacher_logits", teacher_logits)
    _check_where(where, teacher_logits.shape[1 - axis])
    if where is not None:
        # Before any division: what takes no part may be NaN, and so its gradient.
        kept = jnp.expand_dims(jnp.asarray(where), axis)
        teacher_logits = jnp.where(kept, teacher_logits, 0)
    best = jnp.exp(jnp.max(tempered_log_softmax(teacher_logits, 1.0, axis), axis))
    mean = masked_mean(best, where=where)
    weights = best / jnp.where(mean == 0, 1, mean)
    return weights if where is None else jnp.where(where, weights, 0)


def fidelity_weights(
    deviation: Array,
    *,
    highest: float | Array,
    typical: float | Array,
    where: Array | None = None,
) -> Array:
    """Example weights by the uncertainty of a probabilistic teacher.

    `h exp(-log(h / m) d_i / mean(d))`: `h` where the teacher's predictive deviation
    `d_i` is 0, `m` where it is the mean of the batch, less beyond.

    Args:
        deviation: `d`, `[N]`, not negative: of a Gaussian process, say.
        highest: `h`, a scalar above 0.
        typical: `m`, a scalar above 0; below `highest`.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, at least float32, to be multiplied with `softmax_kl`.

    Raises:
        ValueError: if the deviations are empty, not of rank 1, not floating or
            negative, the mask does not fit, an option is not above 0, or `typical` not
            below `highest`.

    Example:
        >>> deviation = jnp.array([0.0, 1.0, 2.0])
        >>> print(fidelity_weights(deviation, highest=4.0, typical=1.0))
        [4.   1.   0.25]

    Reference:
        Kimura et al., "Few-shot learning of neural networks from scratch by pseudo
        example optimization", 2018, arXiv 1802.03039.
    """
    checks.floating("deviation", deviation)
    checks.rank("deviation", deviation, 1)
    checks.not_empty("deviation", deviation)
    checks.positive("highest", highest)
    checks.positive("typical", typical)
    checks.holds(
        "typical",
        lambda np, low, high: np.asarray(low, "float32") < np.asarray(high, "float32"),
        "a number below highest",
        *(typical, highest),
    )
    _check_where(where, deviation.shape[0])
    counted = np.ones(deviation.shape, bool) if where is None else where
    checks.holds(
        "deviation",
        lambda np, d, counted: (d >= 0) | ~counted,
        "numbers of at least 0",
        *(deviation, counted),
    )
    deviation = promote(deviation)
    if where is not None:
        deviation = jnp.where(where, deviation, 0)
    mean = masked_mean(deviation, where=where)
    highest, typical = (jnp.asarray(x, deviation.dtype) for x in (highest, typical))
    relative = deviation / jnp.where(mean == 0, 1, mean)
    weights = highest * jnp.exp(-jnp.log(highest / typical) * relative)
    return weights if where is None else jnp.where(where, weights, 0)


def reliability_mask(
    student_logits: Array,
    teacher_logits: Array,
    *,
    entropy: float | Array = 0.5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mask of examples on which the teacher is certain and the student agrees.

    True where student and teacher choose the same class and the entropy of
    `softmax(teacher_logits)` is at most `entropy` times `log K`. Objective as a
    survey describes it, and our reading: the threshold is ours.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        entropy: a scalar in [0, 1]: the share of the largest possible entropy.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]` bool, to select nodes of a graph or examples of a batch.

    Raises:
        ValueError: as in `softmax_kl`, or if `entropy` lies outside [0, 1].

    Example:
        >>> teacher = jnp.array([[9.0, 0.0], [9.0, 0.0], [0.1, 0.0]])
        >>> student = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> print(reliability_mask(student, teacher))
        [ True False False]

    Reference:
        Zhang et al., "Reliable Data Distillation on Graph Convolutional Network",
        SIGMOD 2020 (no arXiv version).
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.between("entropy", entropy, 0.0, 1.0)
    log_p = tempered_log_softmax(teacher_logits, 1.0, axis, where)
    share = jnp.exp(log_p)
    spread = -jnp.sum(share * jnp.where(share == 0, 0, log_p), axis)
    largest = jnp.log(masked_count(log_p, axis, where))
    sure = spread <= jnp.asarray(entropy, spread.dtype) * largest
    if where is not None:
        selected = jnp.broadcast_to(where, student_logits.shape)
        student_logits, teacher_logits = (
            jnp.where(selected, x, -jnp.inf) for x in (student_logits, teacher_logits)
        )
    return sure & (jnp.argmax(student_logits, axis) == jnp.argmax(teacher_logits, axis))
