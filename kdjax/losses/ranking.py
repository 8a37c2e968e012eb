"""Losses on the order of things: of a batch's neighbours, or of items to recommend."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from kdjax.core import checks
from kdjax.core.examples import at_least, embeddings, pairs
from kdjax.core.numerics import (
    pairwise_distances,
    tempered_log_softmax,
    widen_together,
)
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array

RANK_FORMS = ("hard", "soft")
# Of six candidates there are 720 orders.
_MOST = 6


def _log_orders(scores: Array, valid: Array) -> Array:
    """Log-likelihood of picking the last axis in its order, one score at a time."""
    size = scores.shape[-1]
    left = jnp.triu(jnp.ones((size, size), bool))
    ahead = lax.expand_dims(left, range(scores.ndim - 1)) & valid[..., None, :]
    each = jnp.broadcast_to(scores[..., None, :], ahead.shape)
    log_pick = tempered_log_softmax(each, 1.0, -1, ahead)
    picked = jnp.diagonal(log_pick, axis1=-2, axis2=-1)
    return masked_sum(picked, -1, valid)


def _list_divergence(teacher: Array, student: Array, valid: Array) -> Array:
    """Divergence between the likelihoods of all orders of the candidates, `[N]`."""
    size = teacher.shape[1]
    orders = np.array(list(itertools.permutations(range(size))), np.int32)
    log_teacher, log_student = (
        _log_orders(x[:, orders], valid[:, orders]) for x in (teacher, student)
    )
    share = jnp.exp(log_teacher)
    gap = jnp.where(share == 0, 0, log_teacher - log_student)
    # Candidates that take no part: each order of the others comes up several times.
    times = [math.factorial(size) / math.factorial(k) for k in range(size + 1)]
    count = jnp.sum(valid, axis=1, dtype=jnp.int32)
    return jnp.sum(share * gap, axis=1) / jnp.asarray(times, gap.dtype)[count]


def dark_rank(
    student_features: Array,
    teacher_features: Array,
    *,
    form: str = "hard",
    neighbours: int = 4,
    alpha: float | Array = 3.0,
    beta: float | Array = 3.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """How well the student orders the nearest neighbours that the teacher has.

    With the score `s_ij = -alpha |f_i - f_j|^beta`, an order of the n nearest others
    of the anchor i in the teacher has the likelihood
    `P(j_1 ... j_n) = prod_k exp(s_ij_k) / sum_(m >= k) exp(s_ij_m)`.

    `"hard"`: `-log P` of the student, for the teacher's own order; as RKD's code has
    it, hence the default. Only the order counts, so the teacher's gradient is 0, and
    equal inputs do not give 0.
    `"soft"`: `sum over all orders of P^t (log P^t - log P^s)`, the list-wise
    divergence of the paper. It is 0 for equal inputs.

    The scores know the scale of the features: bring both sides to unit length first,
    as in metric learning. Turning or shifting either side changes nothing.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        form: `"hard"` or `"soft"`.
        neighbours: n, from 1 to 6; all others where there are fewer.
        alpha: a scalar above 0.
        beta: a scalar above 0.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published loss
        is its plain mean (over the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs or
            is below 2, a dtype is not floating, or a knob is out of its range.

    Example:
        >>> student = jnp.array([[0.0, 0], [0.5, 0], [0, 0.7], [0.6, 0.3]])
        >>> teacher = jnp.array([[0.0, 0], [0.2, 0], [0, 0.9], [0.5, 0.1]])
        >>> values = dark_rank(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 1.4108

    Reference:
        Chen, Wang, Zhang, "DarkRank: Accelerating Deep Metric Learning via Cross
        Sample Similarities Transfer", 2017, arXiv 1707.01220.
    """
    checks.one_of("form", form, RANK_FORMS)
    checks.count("neighbours", neighbours, 1, _MOST)
    checks.positive("alpha", alpha)
    checks.positive("beta", beta)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    at_least("student_features", valid.size, 2, "each needs a neighbour")
    distances = [pairwise_distances(x) for x in (student, teacher)]
    distinct = pairs(valid, distinct=True)
    nearness = lax.stop_gradient(jnp.where(distinct, -distances[1], -jnp.inf))
    _, ids = lax.top_k(nearness, min(neighbours, valid.size - 1))
    near = jnp.take_along_axis(distinct, ids, axis=1)
    alpha, beta = (jnp.asarray(x, student.dtype) for x in (alpha, beta))

    def scores(distance: Array) -> Array:
        distance = jnp.take_along_axis(distance, ids, axis=1)
        return -alpha * jnp.power(jnp.where(near, distance, 1), beta)

    if form == "hard":
        return -_log_orders(scores(distances[0]), near)
    return _list_divergence(scores(distances[1]), scores(distances[0]), near)


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
    """The teacher's first items as positives of the student, the first above all.

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
        `[...]`, one value in nats per user, at least float32, beside a loss on the
        known items. K, decay and sharpness are to be tuned; the defaults are ours.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or a knob
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
    student, teacher = widen_together(student_scores, teacher_scores)
    valid = jnp.broadcast_to(True if where is None else where, student.shape)
    student, teacher, valid = (
        jnp.moveaxis(x, axis, -1) for x in (student, teacher, valid)
    )
    student = jnp.where(valid, student, 0)
    teacher = lax.stop_gradient(jnp.where(valid, teacher, -jnp.inf))
    _, items = lax.top_k(teacher, min(top, student.shape[-1]))
    real = jnp.take_along_axis(valid, items, -1)
    chosen = jnp.take_along_axis(student, items, -1)
    place = jnp.arange(items.shape[-1], dtype=student.dtype)
    place = jnp.broadcast_to(place, items.shape[-1:])
    share = jnp.exp(-place / jnp.asarray(decay, student.dtype))
    share = jnp.where(real, lax.expand_dims(share, range(items.ndim - 1)), 0)
    total = jnp.sum(share, -1, keepdims=True)
    weight = share / jnp.where(total == 0, 1, total)
    if sharpness is not None:
        checks.positive("sharpness", sharpness)
        behind = _places(student, chosen, valid) - lax.expand_dims(
            place, range(items.ndim - 1)
        )
        behind = jnp.tanh(jnp.asarray(sharpness, student.dtype) * behind)
        weight = weight * jnp.where(behind > 0, behind, 0)
    return masked_sum(-weight * nn.log_sigmoid(chosen), -1, real)


def _places(scores: Array, chosen: Array, valid: Array) -> Array:
    """How many items have a higher score than each of the chosen ones."""
    higher = scores[..., None, :] > chosen[..., None]
    count = jnp.sum(higher & valid[..., None, :], -1, dtype=jnp.int32)
    return count.astype(scores.dtype)
