"""Ranking distillation: order of the items that a recommender puts first."""

import jax.numpy as jnp
from jax import lax, nn

from kdjax.core import checks
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array


def ranking_distillation(
    student_scores: Array,
    teacher_scores: Array,
    *,
    top: int = 10,
    decay: float | Array = 10.0,
    sharpness: float | Array | None = None,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Ranking distillation (RD): the teacher's top items as weighted positives.

    `sum_(r < K) w_r d_r (-log sigmoid(s_(j_r)))` with `j_0, j_1, ...` the items in
    the teacher's order and `w_r = exp(-r / decay) / sum_q exp(-q / decay)`.
    `d_r = max(0, tanh(sharpness (rank - r)))` with `rank` the item's place, from 0,
    in the student's own order: what the student already ranks as high costs nothing
    more. Without `sharpness` all `d_r` are 1, as at the start of training.

    Weights and places are constants of the formula. Only the teacher's order counts:
    its gradient is 0, and equal inputs do not give 0. The rank is the true one among
    the items given; the released code estimates it from a sample of all items, which
    the caller may do by passing such a sample.

    Args:
        student_scores: `[..., items]`, before any sigmoid.
        teacher_scores: the same shape.
        top: K, at least 1; all items where there are fewer.
        decay: in places, a scalar above 0.
        sharpness: a scalar above 0, or None.
        axis: the axis of the items.
        where: bool, broadcastable to the scores; the items that take part: not those
            the user is known to like already.

    Returns:
        `[...]`, one value in nats per user, at least float32, with a loss on the
        known items. K, decay and sharpness are to be tuned; the defaults are ours.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or an option
            is not above 0.

    Example:
        >>> student = jnp.array([[0.0, 0.0, 9.0]])
        >>> teacher = jnp.array([[3.0, 2.0, 1.0]])
        >>> print(f"{ranking_distillation(student, teacher, top=2).mean():.4f}")
        0.6931
        >>> values = ranking_distillation(student, student, top=2, sharpness=1.0)
        >>> print(values)
        [0.]

    Reference:
        Tang, Wang, "Ranking Distillation: Learning Compact Ranking Models With High
        Performance for Recommender System", 2018, arXiv 1809.07428.
    """
    checks.matching_pair("scores", student_scores, teacher_scores)
    axis = checks.axis(axis, "student_scores", student_scores)
    checks.mask("where", where, student_scores.shape)
    checks.count("top", top)
    checks.positive("decay", decay)
    student, teacher = promote_together(student_scores, teacher_scores)
    valid = jnp.broadcast_to(True if where is None else where, student.shape)
    student, teacher, valid = (
        jnp.moveaxis(x, axis, -1) for x in (student, teacher, valid)
    )
    student = jnp.where(valid, student, 0)
    teacher = lax.stop_gradient(jnp.where(valid, teacher, -jnp.inf))
    _, items = lax.top_k(teacher, min(top, student.shape[-1]))
    real = jnp.take_along_axis(valid, items, -1)
    chosen = jnp.take_along_axis(student, items, -1)
    order = jnp.arange(items.shape[-1], dtype=student.dtype)
    order = jnp.broadcast_to(order, items.shape[-1:])
    share = jnp.exp(-order / jnp.asarray(decay, student.dtype))
    share = jnp.where(real, lax.expand_dims(share, range(items.ndim - 1)), 0)
    total = jnp.sum(share, -1, keepdims=True)
    weight = share / jnp.where(total == 0, 1, total)
    if sharpness is not None:
        checks.positive("sharpness", sharpness)
        behind = _ranks(student, chosen, valid) - lax.expand_dims(
            order, range(items.ndim - 1)
        )
        behind = jnp.tanh(jnp.asarray(sharpness, student.dtype) * behind)
        weight = weight * jnp.where(behind > 0, behind, 0)
    return masked_sum(-weight * nn.log_sigmoid(chosen), -1, real)


def _ranks(scores: Array, chosen: Array, valid: Array) -> Array:
    """Number of items with a higher score than each of the chosen ones."""
    higher = scores[..., None, :] > chosen[..., None]
    count = jnp.sum(higher & valid[..., None, :], -1, dtype=jnp.int32)
    return count.astype(scores.dtype)
