"""Checks, log-probabilities and labels, shared by everything that reads logits."""

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
) -> tuple[Array, Array, Array]:
    """Log-probabilities of student and teacher, and the squared temperature."""
    check_pair(student, teacher, axis, where)
    checks.classes("student_logits", student, axis)
    checks.positive("temperature", temperature)
    student, teacher = promote_together(student, teacher)
    log_student = tempered_log_softmax(student, temperature, axis, where)
    log_teacher = tempered_log_softmax(teacher, temperature, axis, where)
    return log_student, log_teacher, jnp.square(jnp.asarray(temperature, student.dtype))


def divergence(
    log_p: Array, log_q: Array, axis: int = -1, where: Array | None = None
) -> Array:
    """`sum_k p_k (log p_k - log q_k)`; a class with `p_k = 0` costs nothing."""
    share = jnp.exp(log_p)
    gap = jnp.where(share == 0, 0, log_p - log_q)
    return masked_sum(share * gap, axis, where)


def cross_entropy(
    log_p: Array, log_q: Array, axis: int = -1, where: Array | None = None
) -> Array:
    """`-sum_k p_k log q_k`; a class with `p_k = 0` costs nothing."""
    share = jnp.exp(log_p)
    return -masked_sum(share * jnp.where(share == 0, 0, log_q), axis, where)


def x_log_x(x: Array) -> Array:
    """`x log x`, with 0 and gradient 0 for `x <= 0`."""
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, x, 1)), 0)


def check_ids(name: str, ids: Array, student: Array, axis: int) -> None:
    """Refuse class ids that are not integers below K, one for every example."""
    checks.integer(name, ids, "class ids")
    axis = checks.axis(axis, "student_logits", student)
    checks.shape(name, ids, student.shape[:axis] + student.shape[axis + 1 :])
    checks.below(name, ids, student.shape[axis])


def mark_labels(ids: Array, logits: Array, axis: int, where: Array | None) -> Array:
    """Mask of the logits at the label of each example.

    None is for an id that names no class, or one that takes no part: such an example
    has no label.
    """
    axis = axis % logits.ndim
    ids = jnp.expand_dims(jnp.asarray(ids).astype(jnp.int32), axis)
    hit = lax.broadcasted_iota(jnp.int32, logits.shape, axis) == ids
    return hit if where is None else hit & jnp.broadcast_to(where, hit.shape)
