"""Knowledge review (ReviewKD): the hierarchical context loss."""

from collections.abc import Sequence

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import adaptive_mean
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._features._image_pair import image_pair


def review_kd(
    student_features: Array,
    teacher_features: Array,
    *,
    sizes: tuple[int, ...] = (4, 2, 1),
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """ReviewKD: hierarchical context loss, squared distance at several resolutions.

    `sum_l w_l mean (s_l - t_l)^2 / sum_l w_l`: the maps themselves with weight 1,
    then averaged to 4x4, 2x2 and 1x1 bins, each with half the weight of the level
    before. A level that is not smaller than the height of the maps is left out, and
    does not use up a half.

    Args:
        student_features: `[batch, height, width, channels]`, the student's fused map
            of one level, brought to the teacher's shape.
        teacher_features: the same shape, the teacher's map of that level.
        sizes: the bins along each side, from fine to coarse.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to `[batch, 1, 1, channels]`; the channels that
            take part.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32. The values of all levels are added; the published weight goes
        with the pair of networks (0.6 to 8 on CIFAR-100) and rises from 0 over the
        first 20 epochs.

    Raises:
        ValueError: if shapes differ, are empty or not of rank 4, a dtype is not
            floating, or a size is below 1.

    Example:
        >>> student = jnp.zeros((2, 8, 8, 3))
        >>> print(review_kd(student, student + 2))
        [4. 4.]

    Reference:
        Chen et al., "Distilling Knowledge via Knowledge Review", 2021,
        arXiv 2104.09044.
    """
    if not isinstance(sizes, Sequence):
        checks.refuse("sizes", "numbers of bins", repr(sizes))
    for size in sizes:
        checks.count("sizes", size)
    student, teacher, keep = image_pair(student_features, teacher_features, axis, where)
    gap = student - teacher
    levels = [size for size in sizes if size < gap.shape[1]]
    total, weight, weights = _level(gap, keep), 1.0, 1.0
    for size in levels:
        weight /= 2
        weights += weight
        coarse = adaptive_mean(gap, (size, size), (1, 2))
        total = total + weight * _level(coarse, keep)
    return total / weights


def _level(gap: Array, keep: Array | None) -> Array:
    return masked_mean(masked_mean(jnp.square(gap), (1, 2)), 1, keep)
