"""DarkRank: order of a batch's nearest neighbors."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings, pair_mask, require_examples
from kdjax.core.numerics import pairwise_distances, tempered_log_softmax
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

RANK_VARIANTS = ("hard", "soft")
# Of six candidates there are 720 orders.
_MOST = 6


def _log_orders(scores: Array, valid: Array) -> Array:
    """Log-likelihood of picking the last axis in its order, one score at a time."""
    size = scores.shape[-1]
    # Plackett-Luce: each pick is a softmax over the candidates not yet picked.
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


@over_global_batch()
def dark_rank(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "hard",
    neighbors: int = 4,
    alpha: float | Array = 3.0,
    beta: float | Array = 3.0,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """DarkRank: likelihood of the teacher's order of nearest neighbors.

    With the score `s_ij = -alpha |f_i - f_j|^beta`, an order of the n nearest others
    of the anchor i in the teacher has the likelihood
    `P(j_1 ... j_n) = prod_k exp(s_ij_k) / sum_(m >= k) exp(s_ij_m)`.

    `"hard"`: `-log P` of the student, for the teacher's own order; as RKD's code has
    it, hence the default. Only the order counts, so the teacher's gradient is 0, and
    equal inputs do not give 0.
    `"soft"`: `sum over all orders of P^t (log P^t - log P^s)`, the list-wise
    divergence of the paper. It is 0 for equal inputs.

    The scores depend on the scale of the features: bring student and teacher to unit
    length first, as in metric learning. Turning or shifting either changes nothing.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        variant: `"hard"` or `"soft"`.
        neighbors: n, from 1 to 6; all others where there are fewer.
        alpha: a scalar above 0.
        beta: a scalar above 0.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published loss
        is its plain mean (over the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows differs
            or is below 3, a dtype is not floating, or an option is out of its range.

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
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.one_of("variant", variant, RANK_VARIANTS)
    checks.count("neighbors", neighbors, 1, _MOST)
    checks.positive("alpha", alpha)
    checks.positive("beta", beta)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 3, "each needs 2 others to rank")
    distances = [pairwise_distances(x) for x in (student, teacher)]
    distinct = pair_mask(valid, distinct=True)
    nearness = lax.stop_gradient(jnp.where(distinct, -distances[1], -jnp.inf))
    _, ids = lax.top_k(nearness, min(neighbors, valid.size - 1))
    near = jnp.take_along_axis(distinct, ids, axis=1)
    alpha, beta = (jnp.asarray(x, student.dtype) for x in (alpha, beta))

    def scores(distance: Array) -> Array:
        distance = jnp.take_along_axis(distance, ids, axis=1)
        return -alpha * jnp.power(jnp.where(near, distance, 1), beta)

    if variant == "hard":
        return -_log_orders(scores(distances[0]), near)
    return _list_divergence(scores(distances[1]), scores(distances[0]), near)
