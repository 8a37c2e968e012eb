"""Class attention transfer (CAT-KD)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import adaptive_mean, as_positions
from kdjax.core.numerics import l2_normalize
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._features._image_pair import image_pair


def cat_kd(
    student_features: Array,
    teacher_features: Array,
    *,
    size: int = 2,
    normalize: bool = True,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Class attention transfer (CAT-KD): distance of pooled class activation maps.

    `1/(K r^2) sum_kp (a^s_pk - a^t_pk)^2`: the map of every class is averaged to
    `r x r` bins and, if `normalize`, divided by its norm over the bins. Then scaling
    a class of student or teacher by a positive number changes nothing.

    Args:
        student_features: `[batch, height, width, classes]`: what the classifier, as a
            1x1 convolution, makes of the last map before the pooling.
        teacher_features: the same shape.
        size: `r`, the bins along each side: 2 for most pairs on CIFAR-100, 4 on
            ImageNet. It may not exceed the maps.
        normalize: whether each class has length 1; on in the published runs.
        axis: the axis of the classes; not the first.
        where: bool, broadcastable to `[batch, 1, 1, classes]`; the classes that take
            part.

    Returns:
        `[batch]`, one value per example, at least float32. The published weight goes
        with the pair of networks: 0.7 to 600 on CIFAR-100, 0.5 on ImageNet.

    Raises:
        ValueError: if shapes differ, are empty or not of rank 4, a dtype is not
            floating, or the size is below 1 or above the maps.

    Example:
        >>> student = jnp.ones((2, 4, 4, 10))
        >>> teacher = student.at[:, :2].set(-1.0)
        >>> print(cat_kd(student, teacher))
        [0.5 0.5]

    Reference:
        Guo et al., "Class Attention Transfer Based Knowledge Distillation", 2023,
        arXiv 2304.12777.
    """
    student, teacher, keep = image_pair(student_features, teacher_features, axis, where)
    checks.count("size", size, 1, min(student.shape[1:3]))
    checks.boolean("normalize", normalize)
    pooled = [adaptive_mean(x, (size, size), (1, 2)) for x in (student, teacher)]
    maps = [as_positions(x, -1) for x in pooled]
    if normalize:
        maps = [l2_normalize(x, axis=1) for x in maps]
    error = masked_mean(jnp.square(maps[0] - maps[1]), 1)
    return masked_mean(error, 1, keep)
