"""Locality preserving loss: near neighbors of the teacher stay near in the student."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import (
    embeddings,
    pair_mask,
    require_examples,
    squared_distances,
)
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

# A squared width at or below this is that of equal points.
_EPS = 1e-12


def _median(values: Array, where: Array) -> Array:
    """The median of the selected values, 0 where there is none."""
    ordered = jnp.sort(jnp.where(where, values, jnp.inf).ravel())
    count = jnp.sum(where, dtype=jnp.int32)
    # Indices that are traced have no gradient on Explicit meshes in JAX 0.12.
    at = jnp.arange(ordered.size, dtype=jnp.int32)
    middle = [
        jnp.sum(jnp.where(at == index, ordered, 0))
        for index in (jnp.maximum(count - 1, 0) // 2, count // 2)
    ]
    return jnp.where(count == 0, 0, sum(middle)) / 2


def _neighbors(features: Array, valid: Array, count: int) -> tuple[Array, Array]:
    """Ids of the nearest others of each row, and which of them are any, `[N, k]`."""
    squared = lax.stop_gradient(squared_distances(features, valid))
    distinct = pair_mask(valid, distinct=True)
    nearest = jnp.where(distinct, -squared, -jnp.inf)
    _, ids = lax.top_k(nearest, min(count, valid.size - 1))
    return ids, jnp.take_along_axis(distinct, ids, axis=1)


@over_global_batch()
def locality_preserving(
    student_features: Array,
    teacher_features: Array,
    *,
    neighbors: int = 5,
    sigma: float | Array | None = None,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Locality preserving loss: the teacher's near neighbors stay near.

    For the anchor i: `1/k sum_j a_ij |f_i^s - f_j^s|^2` over the k nearest others of
    i in the teacher, with `a_ij = exp(-|f_i^t - f_j^t|^2 / sigma^2)`. Turning or
    shifting student or teacher changes nothing; without `sigma`, neither does scaling
    the teacher. The loss only attracts: alone it collapses the student, and equal
    inputs do not give 0.

    Tap penultimate features. Weights in use: 1.5 with 5 neighbors, from ports; there
    is no code of the authors.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        neighbors: k, at least 1; all others where there are fewer.
        sigma: the width of the Gaussian in units of the teacher's features, a scalar
            above 0. By default its square is the median of the squared distances to
            the neighbors, at least 1e-12.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row in squared units of the student's features, at
        least float32. The published loss is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows differs
            or is below 2, a dtype is not floating, or an option is not above 0.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = locality_preserving(student, teacher, neighbors=1, sigma=3.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 2.4981

    Reference:
        Chen et al., "Learning Student Networks via Feature Embedding", 2021,
        arXiv 1812.06597.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.count("neighbors", neighbors)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 2, "each needs a neighbor")
    ids, near = _neighbors(teacher, valid, neighbors)
    far, far_teacher = (
        jnp.sum(jnp.square(x[:, None] - x[ids]), axis=2) for x in (student, teacher)
    )
    if sigma is None:
        square = _median(far_teacher, near)
        square = jnp.where(square < _EPS, _EPS, square)
    else:
        checks.positive("sigma", sigma)
        square = jnp.square(jnp.asarray(sigma, student.dtype))
    return masked_mean(jnp.exp(-far_teacher / square) * far, 1, near)
