"""Batches whose examples are compared with each other: checks, masks, Gram matrices."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

FEATURES = ("student_features", "teacher_features")


def check_embeddings(
    student: Any,
    teacher: Any,
    axis: int,
    where: Any = None,
    names: tuple[str, str] = FEATURES,
    rows: int | None = None,
) -> int:
    """Refuse two sides that are not one matrix row per example; the number of rows.

    The widths may differ. `rows` is the expected number, where that is fixed.
    """
    for name, x in zip(names, (student, teacher), strict=True):
        checks.floating(name, x)
        checks.rank(name, x, 2)
        checks.not_empty(name, x)
        checks.axis(axis, name, x)
    count = student.shape[1 - axis % 2] if rows is None else rows
    for name, x in zip(names, (student, teacher), strict=True):
        width = x.shape[axis]
        checks.shape(name, x, (width, count) if axis % 2 == 0 else (count, width))
    if where is not None:
        checks.mask("where", where, (count,))
        checks.shape("where", where, (count,))
    return count


def require_examples(name: str, rows: int, minimum: int, why: str) -> None:
    """Refuse a batch in which no example has anything to be compared with."""
    if rows < minimum:
        checks.refuse(name, f"at least {minimum} examples ({why})", rows)


def embeddings(
    student: Array,
    teacher: Array,
    axis: int = -1,
    where: Array | None = None,
    names: tuple[str, str] = FEATURES,
    rows: int | None = None,
) -> tuple[Array, Array, Array]:
    """Both as `[N, D]` in one dtype with masked rows at 0, and the mask `[N]`."""
    rows = check_embeddings(student, teacher, axis, where, names, rows)
    student, teacher = (jnp.moveaxis(promote(x), axis, -1) for x in (student, teacher))
    student, teacher = promote_together(student, teacher)
    if where is None:
        where = jnp.ones(rows, bool)
    keep = jnp.asarray(where)[:, None]
    return jnp.where(keep, student, 0), jnp.where(keep, teacher, 0), keep[:, 0]


def pair_mask(valid: Array, *, distinct: bool = False) -> Array:
    """Mask of the pairs of two examples that take part, `[N, N]`."""
    both = valid[:, None] & valid[None, :]
    return both & ~jnp.eye(valid.size, dtype=bool) if distinct else both


def gram(a: Array, b: Array | None = None) -> Array:
    """Inner products of the rows of `a` with those of `b`, in full precision."""
    b = a if b is None else b
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)


def squared_distances(x: Array, valid: Array) -> Array:
    """Squared Euclidean distances between the rows, `[N, N]`, from one Gram matrix.

    Their error is the rounding of the largest of them: good for comparing distances
    and for fractions of the largest, not for the root of a small one (for which see
    `numerics.pairwise_distances`). The diagonal is exactly 0.
    """
    # A shift changes no distance: the gradient through it is zero by itself.
    center = lax.stop_gradient(masked_mean(x, 0, valid[:, None]))
    x = jnp.where(valid[:, None], x - center[None, :], 0)
    size = jnp.sum(jnp.square(x), axis=1)
    squared = size[:, None] + size[None, :] - 2 * gram(x)
    return jnp.where((squared <= 0) | jnp.eye(x.shape[0], dtype=bool), 0, squared)
