"""Losses between the geometry of two batches of embeddings.

Their value for one example depends on all others, so they mean the global batch.
Under `jax.jit` over a mesh that is what they compute. Under `jax.pmap` or
`jax.shard_map`, pass features (and `where`) gathered with `kdjax.core.collectives`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import at_least, embeddings, gram, pairs
from kdjax.core.numerics import huber, l2_normalize, pairwise_distances
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

# Entries of the [vertices, N, N] block of cosines that one step of rkd_angle holds.
_BLOCK = 2**24


def _relative_distances(features: Array, valid: Array) -> Array:
    """Distances in units of their mean over the distinct pairs."""
    distance = pairwise_distances(features)
    unit = masked_mean(distance, where=pairs(valid, distinct=True))
    return distance / jnp.where(unit == 0, 1, unit)


def rkd_distance(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference of the two batches' distance matrices, each in units of its mean.

    For the anchor i: `1/N sum_j Huber_1(d_ij^t / mu^t - d_ij^s / mu^s)` with
    `d_ij = |f_i - f_j|` and `mu` the mean of the positive distances of that network.
    Turning, shifting or scaling either side changes nothing. The gradient flows
    through both `mu`.

    Squared distances are raised to 1e-12 before the root, as in the authors' code:
    equal rows are 1e-6 apart, count as positive, and enter `mu`. One row alone gives
    0, and so do two batches that have each collapsed to a point; a batch that has
    collapsed against one that has not does not.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        mean over all `N^2` entries, is its plain mean (over the examples that take
        part); its weight there is 25 beside 50 for `rkd_angle`.

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs,
            or a dtype is not floating.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = rkd_distance(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0666

    Reference:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019,
        arXiv 1904.05068.
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    gap = _relative_distances(teacher, valid) - _relative_distances(student, valid)
    return masked_mean(huber(gap), axis=1, where=pairs(valid))


def _cosines(features: Array, vertex: Array) -> Array:
    """Cosine of the angle at `vertex` between every two rows, `[N, N]`."""
    return gram(l2_normalize(features - vertex[None, :]))


def rkd_angle(
    student_features: Array,
    teacher_features: Array,
    *,
    chunk: int | None = None,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference of the angles that all triples of the two batches form.

    For the vertex j: `1/N^2 sum_ik Huber_1(A_jik^t - A_jik^s)` with the cosine
    `A_jik = <e_ji, e_jk>` and the rays `e_jk = (f_k - f_j) / max(|f_k - f_j|, 1e-12)`.
    Degenerate triples are counted, as in the authors' code: the cosine is 0 where i
    or k is the vertex, 1 where i is k. A ray between equal rows is 0 and has
    gradient 0.

    Time grows with `N^3`. Memory does not: the vertices are taken `chunk` at a time,
    and their cosines are computed again in the backward pass.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        chunk: how many vertices to take at a time; by default as many as make
            about 16 million cosines, which is all of them up to N = 256. It does
            not change the value.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per vertex, at least float32. The published loss, the mean
        over all `N^3` entries, is its plain mean (over the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs,
            a dtype is not floating, or `chunk` is below 1.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = rkd_angle(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0667

    Reference:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019,
        arXiv 1904.05068.
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    if chunk is None:
        chunk = max(1, _BLOCK // valid.size**2)
    checks.positive("chunk", chunk)
    both = pairs(valid)

    def value(vertex: tuple[Array, Array, Array]) -> Array:
        student_vertex, teacher_vertex, takes_part = vertex
        gap = _cosines(teacher, teacher_vertex) - _cosines(student, student_vertex)
        return masked_mean(huber(gap), where=both & takes_part)

    vertices = (student, teacher, valid)
    return lax.map(jax.checkpoint(value), vertices, batch_size=chunk)


def _unit_distances(features: Array) -> Array:
    """Squared distances of the unit rows, `[N, N]`."""
    unit = l2_normalize(features)
    size = jnp.sum(jnp.square(unit), axis=1)
    return size[:, None] + size[None, :] - 2 * gram(unit)


def _takes_part(valid: Array, ids: Array) -> Array:
    """Whether an id names an example that takes part."""
    inside = (ids >= 0) & (ids < valid.size)
    return inside & valid[jnp.where(inside, ids, 0)]


def _hinges(
    rows: Array, first: Array, second: Array, margin: Array
) -> tuple[Array, Array]:
    """Hinges of one anchor, and for which pairs the teachers have a majority.

    `rows` `[1 + teachers, N]` are the anchor's distances, the student's first.
    """
    gap = rows[:, second] - rows[:, first]
    # Nearer by less than the rounding of a Gram matrix is not nearer.
    decided = jnp.abs(gap[1:]) > 16 * jnp.finfo(gap.dtype).eps
    side = jnp.sign(jnp.sum(jnp.where(decided, jnp.sign(gap[1:]), 0), axis=0))
    hinge = margin - side * gap[0]
    return jnp.where(hinge < 0, 0, hinge), side != 0


def triplet_relation(
    student_features: Array,
    teacher_features: Array,
    *,
    other_teachers: Sequence[Array] = (),
    triplets: Array | None = None,
    margin: float | Array = 0.2,
    chunk: int | None = None,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Hinge on the order of distances that the majority of the teachers see.

    For the anchor i: the mean over the pairs (j, k) of `max(0, d_ij - d_ik + margin)`
    where more teachers have j nearer to i than have k nearer, and with j and k
    exchanged where fewer have. Ties leave the pair out. `d` is the squared distance
    of the student's rows scaled to unit length. Only the order of the teachers'
    distances counts, so their gradient is 0, and equal inputs do not give 0.

    All pairs cost time `N^3` but not memory; `triplets` limits both. Tap one pooled
    intermediate layer of each network. The paper adds the loss to the cross-entropy
    with the averaged teachers; its weight, margin, distance and mean could not be
    checked, so these are choices of this library, with 1 as the weight.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        other_teachers: further teachers, each `[N, E_m]`, who vote as well.
        triplets: integer `[N, S, 2]`, for each anchor the S pairs (j, k) to look at;
            a pair that is not two other examples is left out. All pairs by default.
        margin: a scalar above 0, in squared distances, which are at most 4.
        chunk: how many anchors to take at a time; by default as many as make about
            16 million pairs. It does not change the value.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor, at least float32. The loss is its plain mean
        (over the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs or
            is below 3, a dtype is wrong, or a knob is out of its range.

    Example:
        >>> student = jnp.array([[0.0, 1], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[1.0, 0, 0], [3, 0, 1], [0, 4, 0], [0, 0, 1]])
        >>> values = triplet_relation(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.5942

    Reference:
        You, Xu, Xu, Tao, "Learning from Multiple Teacher Networks", KDD 2017,
        doi 10.1145/3097983.3098135 (no arXiv version).
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    at_least("student_features", valid.size, 3, "an anchor needs two others")
    checks.positive("margin", margin)
    distances = [_unit_distances(x) for x in (student, teacher)]
    for m, other in enumerate(other_teachers):
        names = ("student_features", f"other_teachers[{m}]")
        _, other, _ = embeddings(student_features, other, axis, where, names)
        distances.append(_unit_distances(other).astype(student.dtype))
    everyone = jnp.arange(valid.size, dtype=jnp.int32)
    if triplets is not None:
        checks.integer("triplets", triplets)
        checks.rank("triplets", triplets, 3)
        checks.shape("triplets", triplets, (valid.size, triplets.shape[1], 2))
        triplets = jnp.asarray(triplets).astype(jnp.int32)
    if chunk is None:
        looked_at = valid.size**2 if triplets is None else max(1, triplets.shape[1])
        chunk = max(1, _BLOCK // looked_at)
    checks.positive("chunk", chunk)
    margin = jnp.asarray(margin, student.dtype)

    def value(anchor: tuple[Array, Array, Array | None]) -> Array:
        me, mine, asked = anchor
        first, second = everyone[:, None], everyone[None, :]
        if asked is not None:
            first, second = asked[:, 0], asked[:, 1]
        hinge, decided = _hinges(mine, first, second, margin)
        others = (first != me) & (second != me) & (first != second)
        real = _takes_part(valid, first) & _takes_part(valid, second)
        return masked_mean(hinge, where=decided & others & real & valid[me])

    from_each = jnp.moveaxis(jnp.stack(distances), 1, 0)
    anchors = (everyone, from_each, triplets)
    return lax.map(jax.checkpoint(value), anchors, batch_size=chunk)
