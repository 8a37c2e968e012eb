"""Teacher-bounded regression of boxes."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array


def bounded_regression(
    student_boxes: Array,
    teacher_boxes: Array,
    *,
    targets: Array,
    margin: float | Array = 0.0,
    where: Array | None = None,
) -> Array:
    """Teacher-bounded regression: squared box error above the teacher's error.

    `|s - y|^2` where `|s - y|^2 + margin > |t - y|^2`, else 0: the teacher's error is
    a bound, not a target. The teacher has gradient 0.

    Args:
        student_boxes: `[..., 4]`, regressed boxes or offsets.
        teacher_boxes: the same shape, for the same proposals.
        targets: `y`, the same shape.
        margin: a scalar, not negative, in squared units of the boxes.
        where: bool, broadcastable to the boxes; the coordinates that take part.

    Returns:
        `[...]`, one value per box, at least float32; with the usual smooth L1.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or the
            margin is negative.

    Example:
        >>> targets = jnp.zeros((2, 4))
        >>> teacher = jnp.ones((2, 4))
        >>> student = jnp.array([[2.0, 0, 0, 1], [0.1, 0, 0, 0]])
        >>> print(bounded_regression(student, teacher, targets=targets))
        [5. 0.]

    Reference:
        Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models
        with Knowledge Distillation", NeurIPS 2017 (no arXiv version).
    """
    checks.matching_pair("boxes", student_boxes, teacher_boxes)
    checks.floating("targets", targets)
    checks.same_shape("targets", targets, "student_boxes", student_boxes)
    checks.rank("student_boxes", student_boxes, 1, at_least=True)
    checks.mask("where", where, student_boxes.shape)
    checks.between("margin", margin, 0.0)
    student, teacher, targets = promote_together(student_boxes, teacher_boxes, targets)
    if where is not None:
        keep = jnp.broadcast_to(where, student.shape)
        student, teacher, targets = (
            jnp.where(keep, x, 0) for x in (student, teacher, targets)
        )
    error, bound = (
        masked_sum(jnp.square(x - targets), -1, where) for x in (student, teacher)
    )
    met = error + jnp.asarray(margin, error.dtype) <= bound
    return jnp.where(met, 0, error)
