"""Checks, log-probabilities and labels, shared by everything that reads logits."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array


def check_pair(student: Array, teacher: Array, axis: int, where: Array | None) -> None:
    """Refuse logits that do not match, an axis they lack, a mask that does not fit."""
    checks.matching_pair("logits", student, teacher)
    checks.axis(axis, "student_logits", student)
    checks.mask("where", where, student.shape)


def possible(student: Array, teacher: Array, where: Array | None) -> Array:
    """Mask of the classes that take part and that not both rule out.

    Minus infinity in student and teacher rules a class out, as in a vocabulary mask.
    """
    mask = ~(jnp.isneginf(student) & jnp.isneginf(teacher))
    return mask if where is None else mask & jnp.broadcast_to(where, mask.shape)


def tempered_pair(
    student: Array,
    teacher: Array,
    temperature: float | Array,
    axis: int,
    where: Array | None,
    axis_name: str | None = None,
) -> tuple[Array, Array, Array]:
    """Log-probabilities of student and teacher, and the squared temperature.

    axis_name: the mapped axis that divides the classes over devices, if any.
    """
    check_pair(student, teacher, axis, where)
    checks.classes("student_logits", student, axis, axis_name)
    checks.temperature("temperature", temperature)
    student, teacher = promote_together(student, teacher)
    log_student, log_teacher = (
        tempered_log_softmax(x, temperature, axis, where, axis_name)
        for x in (student, teacher)
    )
    return log_student, log_teacher, jnp.square(jnp.asarray(temperature, student.dtype))


def divergence(
    log_p: Array,
    log_q: Array,
    axis: int = -1,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """`sum_k p_k (log p_k - log q_k)`; a class with `p_k = 0` costs nothing.

    axis_name: as in `tempered_pair`.
    """
    share = jnp.exp(log_p)
    gap = jnp.where(share == 0, 0, log_p - log_q)
    return masked_sum(share * gap, axis, where, axis_name)


def cross_entropy(
    log_p: Array,
    log_q: Array,
    axis: int = -1,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """`-sum_k p_k log q_k`; a class with `p_k = 0` costs nothing.

    axis_name: as in `tempered_pair`.
    """
    share = jnp.exp(log_p)
    cost = share * jnp.where(share == 0, 0, log_q)
    return -masked_sum(cost, axis, where, axis_name)


def x_log_x(x: Array) -> Array:
    """`x log x`, with 0 and gradient 0 for `x <= 0`."""
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, x, 1)), 0)


def check_ids(
    name: str, ids: Array, student: Array, axis: int, axis_name: str | None = None
) -> None:
    """Refuse class ids that are not integers below K, one for every example."""
    checks.integer(name, ids, "class ids")
    axis = checks.axis(axis, "student_logits", student)
    checks.shape(name, ids, student.shape[:axis] + student.shape[axis + 1 :])
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    checks.below(name, ids, student.shape[axis] * devices)


def local_ids(ids: Array, classes: int, axis_name: str | None) -> Array:
    """Class ids as indices of this device's classes; out of range for the others'.

    Each device of the mapped axis has `classes` of them, in order of device.
    """
    ids = jnp.asarray(ids).astype(jnp.int32)
    return ids if axis_name is None else ids - classes * lax.axis_index(axis_name)


def mark_indices(indices: Array, classes: int) -> Array:
    """Mask `[..., classes]` of the classes that are named by indices `[..., k]`.

    An index of `classes` or more names none. Row by row: on Explicit axes JAX has a
    sharding rule for such a scatter, and none for one over several axes at once.
    """

    def mark(row: Array) -> Array:
        return jnp.zeros(classes, bool).at[row].set(True, mode="drop")

    for _ in range(indices.ndim - 1):
        mark = jax.vmap(mark)
    return mark(indices)


def mark_labels(
    ids: Array,
    logits: Array,
    axis: int,
    where: Array | None,
    axis_name: str | None = None,
) -> Array:
    """Mask of the logits at the label of each example.

    None is for an id that names no class, or one that takes no part: such an example
    has no label. `axis_name`: as in `tempered_pair`; the mask is of this device's
    classes.
    """
    axis = axis % logits.ndim
    ids = jnp.expand_dims(local_ids(ids, logits.shape[axis], axis_name), axis)
    hit = lax.broadcasted_iota(jnp.int32, logits.shape, axis) == ids
    return hit if where is None else hit & jnp.broadcast_to(where, hit.shape)
