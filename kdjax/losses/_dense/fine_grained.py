"""Fine-grained feature imitation near objects."""

import jax.numpy as jnp

from kdjax.core.layout import apply_mask, map_pair
from kdjax.core.types import Array
from kdjax.losses._dense._importance import importance_weights


def fine_grained_imitation(
    student_features: Array,
    teacher_features: Array,
    *,
    importance: Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Fine-grained imitation (FGFI): feature distance near objects.

    `sum_p m_p sum_c (s_pc - t_pc)^2 / (2 sum_p m_p)`. An image whose mask is all 0
    gives 0. A mask of ones makes it `hint_l2` in the variant `"fitnets"`.

    Args:
        student_features: `[batch, ..., channels]`, the map that the detection heads
            read, brought to the teacher's channels by an adapter (3x3 convolution).
        teacher_features: the same shape.
        importance: `m`, `[batch, ...]` without the channels, bool or floating and
            not negative. Published: 1 where some anchor's overlap with a box is above
            half of the best overlap for that box.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part at all.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32. The mask is counted image by image, as in the paper, so that a value
        does not depend on the rest of the batch; the released code counts that of the
        whole batch. 0.01 is a weight to start with.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes,
            a dtype is wrong, or an importance is negative.

    Example:
        >>> student = jnp.zeros((1, 2, 2, 4))
        >>> mask = jnp.array([[[1.0, 0.0], [0.0, 0.0]]])
        >>> print(fine_grained_imitation(student, student + 1, importance=mask))
        [2.]

    Reference:
        Wang et al., "Distilling Object Detectors with Fine-grained Feature
        Imitation", 2019, arXiv 1906.03609.
    """
    pair = map_pair(student_features, teacher_features, axis, where)
    weight = importance_weights(importance, pair, student_features.shape, axis)
    # Positions without weight are left out by selection: they may hold anything.
    gap = apply_mask(pair.student - pair.teacher, (weight > 0)[:, :, None])
    total = jnp.sum(weight * jnp.sum(jnp.square(gap), -1), 1)
    count = jnp.sum(weight, 1)
    return total / (2 * jnp.where(count == 0, 1, count))
