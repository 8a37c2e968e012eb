"""Representational similarity analysis (RSA) as a loss."""

import jax.numpy as jnp

from kdjax.core.examples import embeddings, gram, pair_mask, require_examples
from kdjax.core.numerics import l2_normalize, safe_norm
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

# A variance below this is that of a constant.
_EPS = 1e-12


@over_global_batch()
def representational_similarity(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Representational similarity (RSA): one minus the tables' correlation.

    With `R_ij = 1 - corr(f_i, f_j)`, the correlation over the features, and `u` the
    entries of `R` over pairs of different examples, less their mean and divided by
    their length: `N/2 sum_j (u_ij^s - u_ij^t)^2`, whose mean is `1 - corr(R^s, R^t)`.
    Scaling or shifting the features of any one example changes nothing. A table whose
    entries are all equal has `u = 0`: the mean is 1/2 if one is, and 0 if both are.

    Args:
        student_features: `[N, D]` features of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        axis: the axis of the features.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32; the plain mean (over the
        examples that take part) is in [0, 2]. Published as a score to search by, the
        mean over pairs of layers; no weight as a loss is in our references.

    Raises:
        ValueError: if an argument is not of rank 2, has fewer than 3 examples, the
            number of rows differs, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[1.0, 2, 4], [2, 1, 0], [0, 1, 0], [1, 1, 2]])
        >>> teacher = 3 * student[:, ::-1] + 1
        >>> print(f"{jnp.abs(representational_similarity(student, teacher)).max():.4f}")
        0.0000

    Reference:
        Bashivan, Tensen, DiCarlo, "Teacher Guided Architecture Search", 2019,
        arXiv 1808.01405.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    why = "two of them give a single dissimilarity"
    require_examples("student_features", student.shape[0], 3, why)
    distinct = pair_mask(valid, distinct=True)

    def table(features: Array) -> Array:
        # One minus a correlation, centered, is minus the correlation, centered.
        centered = features - jnp.mean(features, axis=1, keepdims=True)
        alike = gram(l2_normalize(centered))
        alike = jnp.where(distinct, alike - masked_mean(alike, where=distinct), 0)
        size = safe_norm(jnp.ravel(alike))
        flat = size <= _EPS
        return jnp.where(flat, 0, alike) / jnp.where(flat, 1, size)

    gap = jnp.square(table(student) - table(teacher))
    values = jnp.sum(gap, axis=1)
    return values * masked_count(values, where=valid) / 2
