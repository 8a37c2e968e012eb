"""Relative dissimilarity of triplets, by a vote of several teachers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, require_examples
from kdjax.core.numerics import l2_normalize
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch
from kdjax.losses._relations._rows import BLOCK, map_rows


def _unit_distances(features: Array) -> Array:
    """Squared distances of the unit rows, `[N, N]`."""
    unit = l2_normalize(features)
    size = jnp.sum(jnp.square(unit), axis=1)
    return size[:, None] + size[None, :] - 2 * gram(unit)


def _takes_part(valid: Array, ids: Array) -> Array:
    """Mask of the ids of examples that take part."""
    inside = (ids >= 0) & (ids < valid.size)
    return inside & valid[jnp.where(inside, ids, 0)]


def _hinges(gaps: list[Array], real: Array, margin: Array) -> Array:
    """Mean hinge over the pairs whose first member is nearer for most teachers.

    `gaps` are distances to the second of a pair less those to the first, the
    student's first. Masks are numbers, which a CPU multiplies many at a time.
    """
    # Nearer by less than the rounding of a Gram matrix is not nearer.
    least = 16 * jnp.finfo(real.dtype).eps
    votes = jnp.zeros_like(gaps[0])
    for gap in gaps[1:]:
        votes += (gap > least).astype(gap.dtype) - (gap < -least).astype(gap.dtype)
    counted = (votes > 0).astype(real.dtype) * real
    hinge = margin - gaps[0]
    hinge = jnp.where(hinge < 0, 0, hinge)
    total, count = (jnp.sum(jnp.sum(x, axis=-1)) for x in (counted * hinge, counted))
    return total / jnp.maximum(count, 1)


@over_global_batch("other_teachers")
def triplet_relation(
    student_features: Array,
    teacher_features: Array,
    *,
    other_teachers: Sequence[Array] = (),
    triplets: Array | None = None,
    margin: float | Array = 0.2,
    chunk: int | None = None,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Relative dissimilarity: hinge on the majority order of teachers' distances.

    For the anchor i: the mean over the pairs (j, k) of `max(0, d_ij - d_ik + margin)`
    where more teachers have j nearer to i than have k nearer, and with j and k
    exchanged where fewer have. Ties leave the pair out. `d` is the squared distance
    of the student's rows scaled to unit length; the rows of every teacher are scaled
    to unit length too before its order is taken. Only the order of the teachers'
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
            a million pairs. It does not change the value.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor, at least float32. The loss is its plain mean
        (over the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows differs
            or is below 3, a dtype is wrong, or an option is out of its range.

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
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 3, "an anchor needs two others")
    checks.positive("margin", margin)
    distances = [_unit_distances(x) for x in (student, teacher)]
    is_sequence = isinstance(other_teachers, Sequence)
    if not is_sequence and getattr(other_teachers, "ndim", 0) == 0:
        checks.refuse("other_teachers", "a sequence of arrays", repr(other_teachers))
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
        chunk = max(1, BLOCK // looked_at)
    checks.count("chunk", chunk)
    margin = jnp.asarray(margin, student.dtype)

    def value(anchor: tuple[Array, Array, Array | None]) -> Array:
        me, mine, pairs_i = anchor
        if pairs_i is None:
            other = (valid & (everyone != me)).astype(mine.dtype)
            real = other[:, None] * other[None, :]
            gaps = [row[None, :] - row[:, None] for row in mine]
        else:
            first, second = jnp.concatenate([pairs_i, pairs_i[:, ::-1]]).T
            others = (first != me) & (second != me)
            others &= _takes_part(valid, first) & _takes_part(valid, second)
            real = others.astype(mine.dtype)
            gaps = [row[second] - row[first] for row in mine]
        return jnp.where(valid[me], _hinges(gaps, real, margin), 0)

    from_each = jnp.moveaxis(jnp.stack(distances), 1, 0)
    anchors = (everyone, from_each, triplets)
    return map_rows(jax.checkpoint(value, prevent_cse=False), anchors, chunk)
