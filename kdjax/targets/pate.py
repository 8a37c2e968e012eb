"""Private labels (PATE): a vote of teachers with noise, and what it costs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from kdjax.core import checks
from kdjax.core.logits import mark_labels
from kdjax.core.numerics import promote
from kdjax.core.types import Array
from kdjax.targets.ensembling import check_teachers


def noisy_votes(
    key: Array, teacher_logits: Array, *, scale: float | Array = 20.0, axis: int = -1
) -> Array:
    """PATE: labels by a vote of teachers, with Laplace noise on the counts.

    `argmax_k (n_k + e_k)` with `n_k` how many teachers choose the class k and `e_k`
    Laplace noise of the given scale. `private_epsilon` is its cost in privacy.

    Args:
        key: a random key; one for each query.
        teacher_logits: `[teachers, ..., classes]`, the teachers trained on data
            without overlap.
        scale: of the noise, in votes; not negative. Without noise (0) this is the
            plurality, the first class winning a tie. The released script has 20 for
            250 teachers.
        axis: the axis of the classes; not the first.

    Returns:
        `[...]` int32 class ids.

    Raises:
        ValueError: if the logits are empty, of rank below 2 or not floating, or the
            scale is negative.

    Example:
        >>> teachers = jnp.array([[[2.0, 0.0]], [[1.0, 0.0]], [[0.0, 9.0]]])
        >>> print(noisy_votes(jax.random.key(0), teachers, scale=0.0))
        [0]

    Reference:
        Papernot et al., "Semi-supervised Knowledge Transfer for Deep Learning from
        Private Training Data", 2016, arXiv 1610.05755.
    """
    axis = check_teachers(teacher_logits, axis)
    checks.between("scale", scale, 0.0)
    vote = mark_labels(jnp.argmax(teacher_logits, axis), teacher_logits, axis, None)
    count = jnp.sum(vote, 0, dtype=jnp.int32).astype(promote(teacher_logits).dtype)
    noise = jax.random.laplace(key, count.shape, count.dtype)
    counted = count + jnp.asarray(scale, count.dtype) * noise
    return jnp.argmax(counted, axis - 1).astype(jnp.int32)


def _counts(votes: Array | int, axis: int) -> Array | None:
    """The votes as `[queries, classes]`; None where only the queries are counted."""
    if isinstance(votes, int | np.integer):
        checks.count("votes", votes, 1, np.iinfo(np.int32).max)
        return None
    is_count = checks.is_integer(votes)
    if not (is_count or checks.is_floating(votes)) or np.ndim(votes) == 0:
        checks.refuse_dtype("votes", "counts [..., classes] or a whole number", votes)
    checks.not_empty("votes", votes)
    axis = checks.axis(axis, "votes", votes)
    counts = lax.stop_gradient(
        jnp.asarray(votes, float) if is_count else promote(votes)
    )
    checks.holds(
        *("votes", lambda np, n: (n >= 0) & (n < np.inf)),
        *("finite numbers of at least 0", counts),
    )
    return jnp.moveaxis(counts, axis, -1).reshape(-1, votes.shape[axis])


def _log_expm1(x: Array) -> Array:
    return x + jnp.log(-jnp.expm1(-x))


def _log_flip(votes: Array, gamma: Array) -> Array:
    """Log of a bound on the chance that noise elects another class, `[queries]`."""
    # Theorem 1 of the paper: Laplace noise closes a gap of n votes with a chance of at
    # most (2 + gamma n) / (4 exp(gamma n)). A union bound adds the other classes up.
    first = jnp.argmax(votes, -1, keepdims=True)
    behind = gamma * (jnp.take_along_axis(votes, first, -1) - votes)
    losers = jnp.arange(votes.shape[-1])[None] != first
    return logsumexp(jnp.log((2 + behind) / 4) - behind, -1, where=losers)


def _data_dependent(log_q: Array, orders: Array, cost: Array) -> Array:
    """The moments `[queries, orders]` of queries of this privacy `cost`.

    Of `q = exp(log_q)`, `log((1 - q) ((1 - q) / (1 - q e^cost))^l + q e^(l cost))` as
    `log(1 + sum)` of two terms that are positive: nothing cancels, and logs hold the
    q that float32 does not. Infinite from `q = 1 / (1 + e^cost)` on.
    """
    # The bound holds below this chance alone; above it, a stand-in keeps logs finite.
    limit = -jax.nn.softplus(cost)
    in_domain = log_q < limit
    log_q = jnp.where(in_domain, log_q, limit - 1)
    odds = log_q + _log_expm1(cost) - jnp.log1p(-jnp.exp(log_q + cost))
    gain = orders[None] * jax.nn.softplus(odds)[:, None]
    more = jnp.logaddexp(
        jnp.log1p(-jnp.exp(log_q))[:, None] + _log_expm1(gain),
        log_q[:, None] + _log_expm1(orders * cost)[None],
    )
    return jnp.where(in_domain[:, None], jax.nn.softplus(more), jnp.inf)


def private_epsilon(
    votes: Array | int,
    *,
    scale: float | Array = 20.0,
    delta: float | Array = 1e-5,
    orders: Sequence[float] | Array = (1, 2, 3, 4, 5, 6, 7, 8),
    axis: int = -1,
) -> Array:
    """PATE privacy cost: the epsilon of all labels of `noisy_votes` together.

    `min_l (sum_i a_i(l) + log(1 / delta)) / l`, the moments accountant. With
    `g = 1 / scale` a query's moment `a(l)` is the least of `2 g l`, which is that a
    query is `2 g`-private, of `2 g^2 l (l + 1)`, and, where its votes are known and
    `q < (e^(2g) - 1) / (e^(4g) - 1)`, of
    `log((1 - q) ((1 - q) / (1 - e^(2g) q))^l + q e^(2gl))`. There q bounds the chance
    that the noise elects another class than the first, j, of the most votes:
    `q = sum_(k != j) (2 + g (n_j - n_k)) / (4 e^(g (n_j - n_k)))`.

    It holds for one record in the data of one of the teachers, whose data do not
    overlap; only if the noise of every vote was of this scale and drawn afresh (a key
    used once); and only if nothing else of the votes is shown. An epsilon of known
    votes depends on these votes, so it is itself private: publish that of their number,
    or one with noise (the paper's smooth sensitivity), which is not here.

    Args:
        votes: how many teachers chose each class, `[..., classes]`, integers or
            floating, an entry of the other axes for each query. Or the number of
            queries alone: a whole number, for the bound that holds for any votes.
        scale: of the noise, in votes; above 0.
        delta: the chance with which the bound may fail; in (0, 1].
        orders: the moments `l` to choose from, above 0. The released script has 1 to
            8; more of them never harm.
        axis: the axis of the classes.

    Returns:
        A scalar, at least float32, without gradient to the votes.

    Raises:
        ValueError: if the votes are empty, negative or no numbers, their number is
            below 1, `scale` or an order is not above 0, there is no order, or `delta`
            is not in (0, 1].

    Example:
        >>> print(f"{private_epsilon(100, scale=20.0):.4f}")
        5.3026
        >>> choices = jnp.zeros((250, 100), int).at[:5].set(1)
        >>> votes = jax.nn.one_hot(choices, 10).sum(0)
        >>> print(f"{private_epsilon(votes, scale=20.0):.4f}")
        1.4432

    Reference:
        Papernot et al., "Semi-supervised Knowledge Transfer for Deep Learning from
        Private Training Data", 2016, arXiv 1610.05755.
    """
    checks.positive("scale", scale)
    checks.between("delta", delta, 0.0, 1.0, above=True)
    if isinstance(orders, Sequence):
        for order in orders:
            checks.number("orders", order)
    counts = _counts(votes, axis)
    dtype = jnp.asarray(0.0).dtype if counts is None else counts.dtype
    scale, delta, order = (jnp.asarray(x, dtype) for x in (scale, delta, orders))
    checks.rank("orders", order, 1)
    checks.not_empty("orders", order)
    checks.holds(
        *("orders", lambda np, x: (x > 0) & (x < np.inf)),
        *("finite numbers above 0", order),
    )
    # One changed teacher moves two counts by 1: a query costs 2 / scale.
    cost = 2 / scale
    # Moments add up over queries, and each query has the better of two bounds.
    moment = jnp.minimum(cost * order, jnp.square(cost) / 2 * order * (order + 1))
    if counts is None:
        total = jnp.asarray(votes, dtype) * moment
    else:
        by_votes = _data_dependent(_log_flip(counts, 1 / scale), order, cost)
        total = jnp.sum(jnp.minimum(by_votes, moment[None]), 0)
    # The tail bound turns a moment into (epsilon, delta); any order is valid.
    return jnp.min((total - jnp.log(delta)) / order)
