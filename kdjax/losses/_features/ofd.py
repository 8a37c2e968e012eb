"""Overhaul of feature distillation (OFD)."""

import math

import jax.numpy as jnp
from jax.scipy.special import ndtr

from kdjax.core import checks
from kdjax.core.layout import map_pair, per_channel
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array
from kdjax.losses._features._boundary import square_gap


def ofd_margins(scale: Array, bias: Array) -> Array:
    """Margins of OFD: mean of each channel's negative part behind a BatchNorm.

    With the channel normal, mean `b` and deviation `|g|`, this is
    `E[x | x < 0] = b - |g| phi(b / |g|) / Phi(-b / |g|)`, or `-3 |g|` where a negative
    value has a probability of at most 0.001. A scale of 0 gives `min(b, 0)`.

    Args:
        scale: `[channels]`, the `g` of the teacher's BatchNorm right before the tap.
        bias: `[channels]`, its `b`.

    Returns:
        `[channels]`, at most 0, at least float32: the `margin` of `ofd`.
        Compute it once, outside the step.

    Raises:
        ValueError: if shapes differ or are not of rank 1, or a dtype is not floating.

    Example:
        >>> print(ofd_margins(jnp.array([1.0, -2.0, 1.0]), jnp.array([0, 0, 9.0])))
        [-0.7978846 -1.5957692 -3.       ]

    Reference:
        Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019,
        arXiv 1904.01866.
    """
    for name, x in (("scale", scale), ("bias", bias)):
        checks.floating(name, x)
        checks.rank(name, x, 1)
        checks.not_empty(name, x)
    checks.same_shape("bias", bias, "scale", scale)
    scale, bias = promote_together(scale, bias)
    size = jnp.abs(scale)
    # So far from 0 that no value has the other sign.
    far = jnp.abs(bias) >= 40 * size
    ratio = jnp.where(far, 0, bias) / jnp.where(far, 1, size)
    negative = ndtr(-ratio)
    rare = negative <= 0.001
    density = jnp.exp(-jnp.square(ratio) / 2) / math.sqrt(2 * math.pi)
    mean = bias - size * density / jnp.where(rare, 1, negative)
    margin = jnp.where(rare, -3 * size, mean)
    return jnp.where(far, jnp.where(bias < 0, bias, -3 * size), margin)


def ofd(
    student_features: Array,
    teacher_features: Array,
    *,
    margin: Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Overhaul of feature distillation (OFD): partial L2 to margin-clipped features.

    With the target `u = max(t, m_c)`: `sum_pc (s - u)^2` where `s > u` or `t > 0`. So
    a student may be as negative as it likes where the teacher is negative, positive
    teacher values are matched exactly, and negative ones no further down than the
    margin of their channel.

    Args:
        student_features: `[batch, ..., channels]` before the ReLU, brought to the
            teacher's shape by an adapter (1x1 convolution and BatchNorm).
        teacher_features: the same shape, before the ReLU and after the BatchNorm.
            The authors run that BatchNorm with the statistics of the batch.
        margin: `m`, `[channels]` or a scalar array, at most 0: `ofd_margins`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32: the sum over all entries. The published weight is 0.001 in the last
        stage (0.0001 on ImageNet), halved in each stage before.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than two axes, a
            dtype is not floating, or a margin is above 0.

    Example:
        >>> student = jnp.array([[2.0, -3.0, 0.0, -0.2]])
        >>> teacher = jnp.array([[1.0, -2.0, -5.0, -0.1]])
        >>> print(ofd(student, teacher, margin=jnp.asarray(-1.0)))
        [2.]

    Reference:
        Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019,
        arXiv 1904.01866.
    """
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    lowest = per_channel("margin", margin, pair)
    # Of a channel that takes no part it may be anything, NaN too.
    checks.holds("margin", lambda np, m: ~(m > 0), "numbers of at most 0", margin)
    above = pair.teacher > lowest
    target = jnp.where(above, pair.teacher, lowest)
    counts = (pair.student > target) | (pair.teacher > 0)
    error = square_gap(jnp.where(counts, pair.student - target, 0), pair)
    return masked_sum(error, (1, 2), pair.keep)
