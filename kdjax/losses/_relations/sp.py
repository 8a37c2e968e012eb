"""Similarity-preserving distillation (SP)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pair_mask, require_examples
from kdjax.core.numerics import l2_normalize, safe_abs
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

NORMS = ("l1", "l2")


@over_global_batch()
def sp(
    student_features: Array,
    teacher_features: Array,
    *,
    norm: str = "l2",
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Similarity-preserving KD (SP): squared distance between similarity matrices.

    For the anchor i: `1/N sum_j (g_ij^t - g_ij^s)^2` with `G = Q Q^T`, `Q` the
    features, and every row of `G` divided by `max(|row|, 1e-12)`, its Euclidean norm
    (`"l2"`, as published) or the sum of its absolute values (`"l1"`). Turning or
    scaling student or teacher changes nothing; a shift does.

    Tap the last block of both networks, flattened; the published weight is 3000, on
    the sum over the pairs of layers.

    Args:
        student_features: `[N, D]` features of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        norm: `"l2"` or `"l1"`, the norm of the rows of `G`.
        axis: the axis of the features.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        squared Frobenius norm over `N^2`, is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows
            differs or is below 2, a dtype is not floating, or the norm is unknown.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = sp(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0421
        >>> print(f"{sp(student, teacher, norm='l1').mean():.4f}")
        0.0125

    Reference:
        Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019,
        arXiv 1907.09682.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 2, "each needs another")
    checks.one_of("norm", norm, NORMS)
    normalize = l2_normalize if norm == "l2" else _l1_normalize
    gap = normalize(gram(teacher)) - normalize(gram(student))
    return masked_mean(jnp.square(gap), axis=1, where=pair_mask(valid))


def _l1_normalize(x: Array) -> Array:
    """Rows divided by the sum of their absolute values; a row of zeros stays 0."""
    size = jnp.sum(safe_abs(x), axis=-1, keepdims=True)
    zero = size == 0
    return jnp.where(zero, 0, x) / jnp.maximum(jnp.where(zero, 1, size), 1e-12)
