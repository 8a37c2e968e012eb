"""Pairs of feature maps with two spatial axes."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import apply_mask, as_positions, check_maps
from kdjax.core.numerics import promote_together
from kdjax.core.types import Array


def image_pair(student, teacher, axis, where) -> tuple[Array, Array, Array | None]:
    """Both networks as `[batch, height, width, channels]`, and `[batch, channels]`.

    The mask selects channels: a mean over bins would mix positions left out with
    others.
    """
    names = ("student_features", "teacher_features")
    axis = check_maps(names, student, teacher, axis, None)
    checks.rank(names[0], student, 4)
    keep = None
    if where is not None:
        narrow = tuple(n if i in (0, axis) else 1 for i, n in enumerate(student.shape))
        checks.mask("where", where, narrow)
        keep = as_positions(jnp.broadcast_to(where, narrow), axis)[:, 0]
    student, teacher = (
        jnp.moveaxis(x, axis, -1) for x in promote_together(student, teacher)
    )
    wide = None if keep is None else keep[:, None, None, :]
    return apply_mask(student, wide), apply_mask(teacher, wide), keep
