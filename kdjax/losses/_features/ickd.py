"""Inter-channel correlation (ICKD)."""

import jax.numpy as jnp
from jax import lax

from kdjax.core.layout import any_valid, map_pair, rescale
from kdjax.core.numerics import l2_normalize
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def _gram(a: Array, b: Array) -> Array:
    """`[batch, C, D]` inner products over the positions."""
    return jnp.einsum("npc,npd->ncd", a, b, precision=lax.Precision.HIGHEST)


def ickd(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Inter-channel correlation (ICKD): distance between channel Gram matrices.

    `1/C sum_cd (R^s_cd - R^t_cd)^2`, with `G_cd = sum_p F_pc F_pd` and `R` the matrix
    `G` with every row divided by its norm. Scaling or mirroring a whole map changes
    nothing, nor does one permutation of the positions of one network.

    Args:
        student_features: `[batch, ..., channels]`, the last map before the pooling,
            brought to the teacher's channels by an adapter (1x1 convolution and
            BatchNorm).
        teacher_features: the same shape.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in [0, 4], at least float32. It is divided by
        the channels once, as in the authors' code for CIFAR-100; 2.5 is a weight
        to start with. Their code for ImageNet divides by the number of examples too.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, or a
            dtype is not floating.

    Example:
        >>> student = jnp.ones((1, 2, 2, 2))
        >>> teacher = jnp.eye(2).reshape(1, 2, 1, 2)
        >>> teacher = jnp.concatenate([teacher, teacher], 2)
        >>> values = ickd(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.5858

    Reference:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved
        Knowledge Distillation", 2021, arXiv 2202.03680.
    """
    pair = map_pair(student_features, teacher_features, axis, where)
    rows = [
        l2_normalize(_gram(x, x)) for x in map(rescale, (pair.student, pair.teacher))
    ]
    gap = jnp.sum(jnp.square(rows[0] - rows[1]), axis=-1)
    return masked_mean(gap, 1, any_valid(pair.keep, 1))
