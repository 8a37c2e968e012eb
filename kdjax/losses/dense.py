"""Losses of dense predictions: positions and regions of an image, quantised."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import map_pair, selected, some
from kdjax.core.numerics import (
    l2_normalize,
    round_straight_through,
    widen,
    widen_together,
)
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

_FULL = lax.Precision.HIGHEST
# A variance below this is that of a constant.
_FLAT = 1e-12
# A region of two positions, or a symmetric one, has skewness 0 up to rounding.
_SKEW = 1e-3


def pairwise_affinity(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference of how alike the positions of an image are to the two networks.

    `1/P^2 sum_pq (a_pq^s - a_pq^t)^2` with `a_pq` the cosine of the features at the
    positions p and q. Turning the channels of either side or scaling any position
    changes nothing.

    It holds `P^2` numbers an image: pool the map to some 1000 positions first.

    Args:
        student_features: `[batch, ..., channels]`, the last map before the
            classifier, or pooled nodes of it.
        teacher_features: the same positions; the channels may differ.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to both sides; the positions and channels that take
            part.

    Returns:
        `[batch]`, one value per image, at least float32; the published loss is its
        plain mean.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes,
            or a dtype is not floating.

    Example:
        >>> student = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> values = pairwise_affinity(student, jnp.ones((1, 2, 3)))
        >>> print(f"{values.mean():.4f}")
        0.5000

    Reference:
        Liu et al., "Structured Knowledge Distillation for Semantic Segmentation",
        2019, arXiv 1903.04197.
    """
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=False
    )
    full = jax.lax.Precision.HIGHEST
    units = (l2_normalize(x) for x in (pair.student, pair.teacher))
    student, teacher = (jnp.einsum("npc,nqc->npq", x, x, precision=full) for x in units)
    valid = some(pair.keep, -1)
    both = None if valid is None else valid[:, :, None] & valid[:, None, :]
    return masked_mean(jnp.square(student - teacher), (1, 2), both)


def _members(labels: Array, regions: int, band: int) -> Array:
    """Which positions count in which region, `[N, P, R]`."""
    # Narrow integers cannot hold every region's number.
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
    ids = jnp.arange(regions, dtype=labels.dtype)
    member = labels[..., None] == ids.reshape((1,) * labels.ndim + (-1,))
    inside = jnp.any(member, axis=-1, keepdims=True)
    window = (1, *(2 * band + 1,) * (labels.ndim - 1), 1)
    strides = (1,) * member.ndim
    wide = lax.reduce_window(
        member.astype(jnp.int32), np.int32(0), lax.max, window, strides, "SAME"
    )
    return ((wide > 0) & inside).reshape(labels.shape[0], -1, regions)


def _region_moments(features: Array, member: Array) -> Array:
    """Mean, variance and skewness of each region as unit vectors, `[R, N, 3, D]`."""

    def moments(keep: Array) -> Array:
        keep = keep[:, :, None]
        mean = masked_mean(features, 1, keep)
        centred = jnp.where(keep, features - mean[:, None, :], 0)
        variance = masked_mean(jnp.square(centred), 1, keep)
        deviation = jnp.sqrt(jnp.where(variance < _FLAT, _FLAT, variance))
        unit = centred / deviation[:, None, :]
        skewness = masked_mean(unit * jnp.square(unit), 1, keep)
        return jnp.stack(
            [
                l2_normalize(mean),
                l2_normalize(variance),
                l2_normalize(skewness, eps=_SKEW),
            ],
            axis=1,
        )

    return lax.map(moments, jnp.moveaxis(member, 2, 0))


def _check_regions(student: Array, teacher: Array, labels: Array) -> None:
    for name, x in (("student_features", student), ("teacher_features", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 3, at_least=True)
        checks.not_empty(name, x)
    checks.shape("teacher_features", teacher, (*student.shape[:-1], teacher.shape[-1]))
    checks.integer("labels", labels)
    checks.shape("labels", labels, student.shape[:-1])


def inter_region_affinity(
    student_features: Array,
    teacher_features: Array,
    *,
    labels: Array,
    regions: int,
    band: int = 0,
) -> Array:
    """Difference of how alike the regions of an image are to the two networks.

    With the mean, variance and skewness of the features over each region (a class of
    the label map) as vectors `m_r`, `C_rij = cos(m_ri, m_rj)`; then for each image
    `1/(3 R^2) sum_r sum_(i != j) (C_rij^t - C_rij^s)^2` over the R regions present.
    Permuting the positions inside a region changes nothing, nor does scaling either
    side; an image of one region gives 0. Variances are raised to 1e-12 before the
    skewness divides by their root, and a skewness shorter than 0.001, which can be
    rounding alone, is divided by that instead of its length.

    Tap one or two maps of the middle or the end, with the label map brought to their
    size. With `band`, as the paper has it for thin markings, positions at most that
    far from a region along every axis count in it too, and may count in several.
    The authors published no training code; 0.1 is a first guess at a weight.

    This compares regions, not examples, and is no relation of the batch. There is no
    `where`: a position takes no part if its label is outside `[0, regions)`.

    Args:
        student_features: `[N, ..., D]` maps.
        teacher_features: `[N, ..., E]` with the same positions; the channels may
            differ.
        labels: integer region ids `[N, ...]`, shared by both networks.
        regions: how many regions there can be.
        band: by how many positions each region is widened.

    Returns:
        `[N]`, one value per image, at least float32; the loss is its plain mean.

    Raises:
        ValueError: if a side is empty or of a rank below 3, the positions differ, a
            dtype is wrong, `regions` is below 1 or `band` below 0.

    Example:
        >>> student = jnp.array([[[1.0, 0], [1, 1], [0, 1], [0, 2]]])
        >>> teacher = jnp.array([[[1.0, 0], [2, 0], [1, 1], [1, 2]]])
        >>> labels = jnp.array([[0, 0, 1, 1]])
        >>> values = inter_region_affinity(student, teacher, labels=labels, regions=2)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.1686

    Reference:
        Hou et al., "Inter-Region Affinity Distillation for Road Marking
        Segmentation", 2020, arXiv 2004.05304.
    """
    _check_regions(student_features, teacher_features, labels)
    checks.count("regions", regions)
    checks.count("band", band, 0)
    student, teacher = widen_together(student_features, teacher_features)
    member = _members(jnp.asarray(labels), regions, band)

    def affinities(x: Array) -> Array:
        unit = _region_moments(x.reshape(*member.shape[:2], -1), member)
        return jnp.einsum("inmd,jnmd->nmij", unit, unit, precision=_FULL)

    present = jnp.any(member, axis=1)
    distinct = ~jnp.eye(regions, dtype=bool)
    both = present[:, :, None] & present[:, None, :] & distinct[None]
    gap = jnp.square(affinities(teacher) - affinities(student))
    total = masked_sum(gap, (1, 2, 3), both[:, None])
    entries = 3 * jnp.square(jnp.sum(present, axis=1, dtype=jnp.int32))
    return total / jnp.maximum(entries, 1).astype(total.dtype)


def uniform_quantize(
    x: Array, *, levels: int, low: float | Array, high: float | Array
) -> Array:
    """The nearest of evenly spaced levels, with the gradient of none of it.

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
    x = widen(x)
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
    """Squared distance of features that are both rounded to the same few levels.

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
            is not floating, or a knob is out of its range.

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
    gap = selected(student - teacher, pair.keep)
    return masked_mean(jnp.sum(jnp.square(gap), -1) / 2, 1, some(pair.keep, -1))
