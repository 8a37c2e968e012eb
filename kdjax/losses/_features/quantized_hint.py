"""Quantization mimic: hint loss between features rounded to a few levels."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import any_valid, apply_mask, map_pair
from kdjax.core.numerics import promote, round_straight_through
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def uniform_quantize(
    x: Array, *, levels: int, low: float | Array, high: float | Array
) -> Array:
    """Uniform quantization to evenly spaced levels, with a straight-through gradient.

    `low + step round((clip(x) - low) / step)`, `step = (high - low) / (levels - 1)`,
    halves to even. The gradient passes straight through between `low` and `high`, and
    is 0 outside.

    Args:
        x: any shape.
        levels: a whole number, at least 2; `2^b` for b bits.
        low: the lowest level, a scalar.
        high: the highest level, a scalar above `low`.

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if `x` is not floating, the levels are fewer than 2 or no whole
            number, or `high` is not above `low`.

    Example:
        >>> x = jnp.array([-1.0, -0.4, 0.1, 0.9, 1.0])
        >>> print(uniform_quantize(x, levels=4, low=-1.0, high=1.0).round(4))
        [-1.     -0.3333  0.3333  1.      1.    ]

    Reference:
        Wei et al., "Quantization Mimic: Towards Very Tiny CNN for Object Detection",
        2018, arXiv 1805.02152.
    """
    checks.floating("x", x)
    checks.count("levels", levels, 2)
    x = promote(x)
    low, high = jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)
    checks.positive("high - low", high - low)
    step = (high - low) / (levels - 1)
    inside = jnp.where(x < low, low, jnp.where(x > high, high, x))
    return low + step * round_straight_through((inside - low) / step)


def quantized_hint(
    student_features: Array,
    teacher_features: Array,
    *,
    levels: int,
    low: float | Array,
    high: float | Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Quantization mimic: squared distance between quantized features.

    `1/(2 P) sum_pc (Q(s_pc) - Q(t_pc))^2` with `Q` as in `uniform_quantize`: two
    features on one level cost nothing, which leaves a tiny student free there. The
    gradient goes straight through the rounding.

    Args:
        student_features: `[batch, ..., channels]`, one row for each proposal or a
            map, already brought to the teacher's shape by an adapter.
        teacher_features: the same shape, of a teacher trained with such features.
        levels: at least 2.
        low: the lowest level, a scalar.
        high: the highest level, a scalar above `low`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example (proposal) in squared units of the features,
        at least float32. Its weight is not in our references.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, or an option is out of its range.

    Example:
        >>> student, teacher = jnp.array([[0.1, 0.4]]), jnp.array([[0.0, 0.9]])
        >>> print(quantized_hint(student, teacher, levels=2, low=0.0, high=1.0))
        [0.5]

    Reference:
        Wei et al., "Quantization Mimic: Towards Very Tiny CNN for Object Detection",
        2018, arXiv 1805.02152.
    """
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    student, teacher = (
        uniform_quantize(x, levels=levels, low=low, high=high)
        for x in (pair.student, pair.teacher)
    )
    gap = apply_mask(student - teacher, pair.keep)
    return masked_mean(jnp.sum(jnp.square(gap), -1) / 2, 1, any_valid(pair.keep, -1))
