"""Losses between intermediate activations of two networks."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import widen_together
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

HINT_CONVENTIONS = ("fitnets", "mean")


def hint_l2(
    student_features: Array,
    teacher_features: Array,
    *,
    convention: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Squared distance between the student's features and the teacher's hint.

    `"mean"`: `1/(P C) sum_pc (s_pc - t_pc)^2` over positions and channels.
    `"fitnets"`: `1/(2 P) sum_pc (s_pc - t_pc)^2`, half the squared error summed over
    the channels and averaged over the positions, as the paper's own code had it.
    The two differ by a factor of `C / 2`, so a weight belongs to its convention. The
    default is `"mean"`: the weight in common use, 100, was tuned with it
    (RepDistiller, mdistiller), and it does not grow with the width of the hint.

    Args:
        student_features: `[batch, ..., channels]`, already brought to the teacher's
            shape by an adapter.
        teacher_features: the same shape.
        convention: `"mean"` or `"fitnets"`.
        axis: the axis of the channels; not the first, and of no effect for `"mean"`.
        where: bool, broadcastable to the features; the positions and channels that
            take part. A position without any such channel is not counted.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, or the convention is unknown.

    Example:
        >>> student = jnp.zeros((2, 4, 4, 8))
        >>> print(hint_l2(student, student + 1))
        [1. 1.]
        >>> print(hint_l2(student, student + 1, convention="fitnets"))
        [4. 4.]

    Reference:
        Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, arXiv 1412.6550.
    """
    checks.matching_pair("features", student_features, teacher_features)
    checks.rank("student_features", student_features, 2, at_least=True)
    channels = checks.axis(axis, "student_features", student_features)
    if channels == 0:
        raise ValueError(
            "axis: expected the axis of the channels, got the batch axis 0"
        )
    checks.one_of("convention", convention, HINT_CONVENTIONS)
    checks.mask("where", where, student_features.shape)
    student, teacher = widen_together(student_features, teacher_features)
    gap = student - teacher
    if where is not None:
        where = jnp.broadcast_to(where, gap.shape)
        gap = jnp.where(where, gap, 0)
    if convention == "mean":
        return masked_mean(jnp.square(gap), range(1, gap.ndim), where)
    error = masked_sum(jnp.square(gap), channels, where) / 2
    counted = None if where is None else jnp.any(where, channels)
    return masked_mean(error, range(1, error.ndim), counted)
