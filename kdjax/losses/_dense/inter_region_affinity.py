"""Inter-region affinity distillation (IntRA-KD)."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import l2_normalize, promote_together
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

_FULL = lax.Precision.HIGHEST
# A variance below this is that of a constant.
_FLAT = 1e-12
# A region of two positions, or a symmetric one, has skewness 0 up to rounding.
_SKEW = 1e-3


def _members(labels: Array, regions: int, band: int) -> Array:
    """Mask of the positions of each region, `[N, P, R]`."""
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
        centered = jnp.where(keep, features - mean[:, None, :], 0)
        variance = masked_mean(jnp.square(centered), 1, keep)
        # A flat region has no skewness; without a floor, rounding would be divided.
        deviation = jnp.sqrt(jnp.where(variance < _FLAT, _FLAT, variance))
        unit = centered / deviation[:, None, :]
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
    """IntRA-KD: distance between the affinities of regions' moments.

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
        ValueError: if an argument is empty or of a rank below 3, the positions differ,
            a dtype is wrong, `regions` is below 1 or `band` below 0.

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
    student, teacher = promote_together(student_features, teacher_features)
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
