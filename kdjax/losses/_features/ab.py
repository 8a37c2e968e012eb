"""Activation boundaries (AB)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import map_pair
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._features._boundary import square_gap

BOUNDARY_VARIANTS = ("sum", "mean")


def ab(
    student_features: Array,
    teacher_features: Array,
    *,
    margin: float | Array = 1.0,
    variant: str = "sum",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Activation boundaries (AB): squared hinge towards the signs of the teacher.

    `sum_pc (s + m)^2` where the teacher is off (`t <= 0`) and `s > -m`, and
    `(s - m)^2` where it is on and `s <= m`; 0 elsewhere. Only the sign of the teacher
    counts, so its gradient is 0 everywhere.

    `"sum"` adds over positions and channels, as the authors do; `"mean"` averages,
    as KD-Zoo does (with a margin of 2). The default is `"sum"`: the published weights
    belong to it.

    Args:
        student_features: `[batch, ..., channels]` before the ReLU, brought to the
            teacher's shape by an adapter.
        teacher_features: the same shape, before the ReLU.
        margin: `m`, a scalar above 0 in units of the features.
        variant: `"sum"` or `"mean"`.
        axis: the axis of the channels; not the first, and of no effect.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32. RepDistiller weighs it with 0.003 in the last of L stages and with
        half as much in each stage before, for a stage of initialization alone.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, the margin is not above 0 or the variant unknown.

    Example:
        >>> student = jnp.array([[0.5, -2.0, 0.5, 2.0]])
        >>> teacher = jnp.array([[-1.0, -1.0, 1.0, 1.0]])
        >>> print(ab(student, teacher))
        [2.5]

    Reference:
        Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries
        Formed by Hidden Neurons", 2019, arXiv 1811.03233.
    """
    checks.positive("margin", margin)
    checks.one_of("variant", variant, BOUNDARY_VARIANTS)
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    margin = jnp.asarray(margin, pair.student.dtype)
    on = pair.teacher > 0
    target = jnp.where(on, margin, -margin)
    wrong = jnp.where(on, pair.student <= margin, pair.student > -margin)
    error = square_gap(jnp.where(wrong, pair.student - target, 0), pair)
    reduce = masked_sum if variant == "sum" else masked_mean
    return reduce(error, (1, 2), pair.keep)
