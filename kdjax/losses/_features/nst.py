"""Neuron selectivity transfer (NST)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import any_valid, map_pair
from kdjax.core.numerics import l2_normalize
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._features.ickd import _gram

SELECTIVITY_VARIANTS = ("described", "released")
SELECTIVITY_KERNELS = ("linear", "polynomial", "gaussian")


def _squared_norms(x: Array) -> Array:
    return jnp.sum(jnp.square(x), axis=1)


def _distances(a: Array, b: Array) -> Array:
    """`[batch, C, D]` squared distances of the channels, never below 0."""
    norms = _squared_norms(a)[:, :, None] + _squared_norms(b)[:, None, :]
    squared = norms - 2 * _gram(a, b)
    return jnp.where(squared < 0, 0, squared)


def _pairs(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return None
    return a[:, :, None] & b[:, None, :]


def nst(
    student_features: Array,
    teacher_features: Array,
    *,
    kernel: str = "polynomial",
    variant: str = "described",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Neuron selectivity transfer (NST): squared MMD between sets of channel maps.

    `mean k(t, t') + mean k(s, s') - 2 mean k(s, t)` over all pairs of channels, each
    channel a vector over the positions of length 1. The kernels: `"linear"`
    `<a, b>`, `"polynomial"` `<a, b>^2`, `"gaussian"` `exp(-|a - b|^2 / (2 v))` with
    `v` the mean squared distance of all pairs of student and teacher channels
    together, at least 1e-6. The default is `"polynomial"`: the paper found it best and
    its weight is published.

    `variant="described"`, the default, keeps all three terms: the value is never
    negative. `"released"` leaves the teacher's own out, as the authors' code
    does: to the student the two are one, but for the Gaussian's width.

    Only inner products of channels are held, `C^2` numbers an example. Permuting the
    channels of student or teacher changes nothing, nor does scaling one of them by a
    positive number.

    Args:
        student_features: `[batch, ..., channels]`, the output of the last block of
            convolutions.
        teacher_features: the same shape but for the number of channels, which is
            free. Pool the larger of two sizes first.
        kernel: `"linear"`, `"polynomial"` or `"gaussian"`.
        variant: `"described"` or `"released"`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features of student and teacher; the positions
            and channels that take part. A channel without any such position is not
            counted.

    Returns:
        `[batch]`, one value per example, at least float32. The published weight is 50
        with the polynomial kernel.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is not floating, or the kernel or variant is unknown.

    Example:
        >>> student = jnp.ones((1, 2, 2, 3))
        >>> teacher = jnp.eye(4).reshape(1, 2, 2, 4)
        >>> values = nst(student, teacher)
        >>> print(values.shape, f"{values.mean():.2f}")
        (1,) 0.75

    Reference:
        Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer", 2017, arXiv 1707.01219.
    """
    checks.one_of("kernel", kernel, SELECTIVITY_KERNELS)
    checks.one_of("variant", variant, SELECTIVITY_VARIANTS)
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=False
    )
    # Unit channels are compared as samples: their order and number do not matter.
    maps = [l2_normalize(x, axis=1) for x in (pair.student, pair.teacher)]
    valid = any_valid(pair.keep, 1), any_valid(pair.teacher_keep, 1)
    ends = ((0, 0), (1, 1), (0, 1))
    masks = [_pairs(valid[i], valid[j]) for i, j in ends]
    compare = _distances if kernel == "gaussian" else _gram
    values = [compare(maps[i], maps[j]) for i, j in ends]
    if kernel == "polynomial":
        values = [jnp.square(x) for x in values]
    if kernel == "gaussian":
        width = _width(values, masks)
        values = [jnp.exp(-x / (2 * width)) for x in values]
    means = [masked_mean(x, (1, 2), m) for x, m in zip(values, masks, strict=True)]
    # The teacher's own term is constant to the student, so that code may drop it.
    if variant == "released":
        return means[0] - 2 * means[2]
    return means[0] + means[1] - 2 * means[2]


def _width(distances: list[Array], masks: list[Array | None]) -> Array:
    """The mean squared distance over all ordered pairs of channels, `[batch, 1, 1]`."""
    total = count = 0
    for times, x, mask in zip((1, 1, 2), distances, masks, strict=True):
        total += times * masked_sum(x, (1, 2), mask)
        count += times * masked_count(x, (1, 2), mask)
    mean = total / count
    return jnp.where(mean < 1e-6, 1e-6, mean)[:, None, None]
