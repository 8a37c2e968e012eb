"""Losses between the geometry of two batches of embeddings.

Their value for one example depends on all others, so they mean the global batch.
Under `jax.jit` over a mesh that is what they compute. Under `jax.pmap` or
`jax.shard_map`, pass features (and `where`) gathered with `kdjax.core.collectives`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import (
    huber,
    l2_normalize,
    pairwise_distances,
    widen,
    widen_together,
)
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

# Entries of the [vertices, N, N] block of cosines that one step of rkd_angle holds.
_BLOCK = 2**24


def _check_embeddings(student: Array, teacher: Array, axis: int, where: Array | None):
    for name, x in (("student_features", student), ("teacher_features", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 2)
        checks.not_empty(name, x)
        checks.axis(axis, name, x)
    rows = student.shape[1 - axis % 2]
    width = teacher.shape[axis]
    shape = (width, rows) if axis % 2 == 0 else (rows, width)
    checks.shape("teacher_features", teacher, shape)
    if where is not None:
        checks.mask("where", where, (rows,))
        checks.shape("where", where, (rows,))


def _embeddings(student: Array, teacher: Array, axis: int, where: Array | None):
    """Both sides as `[N, D]` in one dtype with masked rows at 0, and the mask."""
    _check_embeddings(student, teacher, axis, where)
    student, teacher = (jnp.moveaxis(widen(x), axis, -1) for x in (student, teacher))
    student, teacher = widen_together(student, teacher)
    if where is None:
        where = jnp.ones(student.shape[0], bool)
    keep = jnp.asarray(where)[:, None]
    return jnp.where(keep, student, 0), jnp.where(keep, teacher, 0), keep[:, 0]


def _pairs(valid: Array) -> Array:
    return valid[:, None] & valid[None, :]


def _relative_distances(features: Array, pairs: Array) -> Array:
    """Distances in units of their mean over the distinct pairs."""
    distance = pairwise_distances(features)
    distinct = pairs & ~jnp.eye(features.shape[0], dtype=bool)
    unit = masked_mean(distance, where=distinct)
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
    student, teacher, valid = _embeddings(
        student_features, teacher_features, axis, where
    )
    pairs = _pairs(valid)
    gap = _relative_distances(teacher, pairs) - _relative_distances(student, pairs)
    return masked_mean(huber(gap), axis=1, where=pairs)


def _cosines(features: Array, vertex: Array) -> Array:
    """Cosine of the angle at `vertex` between every two rows, `[N, N]`."""
    rays = l2_normalize(features - vertex[None, :])
    return jnp.matmul(rays, rays.T, precision=lax.Precision.HIGHEST)


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
    student, teacher, valid = _embeddings(
        student_features, teacher_features, axis, where
    )
    if chunk is None:
        chunk = max(1, _BLOCK // valid.size**2)
    checks.positive("chunk", chunk)
    pairs = _pairs(valid)

    def value(vertex: tuple[Array, Array, Array]) -> Array:
        student_vertex, teacher_vertex, takes_part = vertex
        gap = _cosines(teacher, teacher_vertex) - _cosines(student, student_vertex)
        return masked_mean(huber(gap), where=pairs & takes_part)

    vertices = (student, teacher, valid)
    return lax.map(jax.checkpoint(value), vertices, batch_size=chunk)
