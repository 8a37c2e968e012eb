"""Pair-wise distillation of structured knowledge distillation (SKD)."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core.layout import any_valid, map_pair
from kdjax.core.numerics import l2_normalize
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

_FULL = lax.Precision.HIGHEST


def pairwise_affinity(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Pair-wise distillation (SKD): distance between position affinities.

    `1/P^2 sum_pq (a_pq^s - a_pq^t)^2` with `a_pq` the cosine of the features at the
    positions p and q. Turning the channels of student or teacher or scaling any
    position changes nothing.

    It holds `P^2` numbers an image: pool the map to some 1000 positions first.

    Args:
        student_features: `[batch, ..., channels]`, the last map before the
            classifier, or pooled nodes of it.
        teacher_features: the same positions; the channels may differ.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to student and teacher; the positions and channels
            that take part.

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
    valid = any_valid(pair.keep, -1)
    both = None if valid is None else valid[:, :, None] & valid[:, None, :]
    return masked_mean(jnp.square(student - teacher), (1, 2), both)
