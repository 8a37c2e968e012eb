"""Probabilistic knowledge transfer (PKT)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pair_mask, require_examples
from kdjax.core.numerics import safe_norm
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

TRANSFER_VARIANTS = ("paper", "reference")


def _neighborhoods(features: Array, counted: Array, eps: Array) -> Array:
    """Each row's share of similarity with every other, summing to 1."""
    norm = safe_norm(features, keepdims=True)
    # At the zero vector the gradient would be 1 / eps; as in l2_normalize it is 0.
    features = jnp.where(norm == 0, 0, features) / (norm + eps)
    affinity = (gram(features) + 1) / 2
    # Rounding takes the affinity of opposed rows just below 0, its share below -eps.
    affinity = jnp.where(counted & ~(affinity < 0), affinity, 0)
    total = jnp.sum(affinity, axis=1, keepdims=True)
    return affinity / jnp.where(total == 0, 1, total)


@over_global_batch()
def pkt(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "reference",
    eps: float | Array = 1e-7,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Probabilistic knowledge transfer (PKT): KL divergence between neighborhoods.

    `P_ij = k_ij / sum_j k_ij` with `k_ij = (cos(f_i, f_j) + 1) / 2` and the cosine of
    `f / (|f| + eps)`; then for the anchor i, with `h_ij = P_ij^t log((P_ij^t + eps) /
    (P_ij^s + eps))`:

    `"reference"`: `1/N sum_j h_ij`, i itself among the j, as the authors' code has
    it. `"paper"`: `N sum_(j != i) h_ij`, whose mean is the sum over all pairs. The
    default is the first, to which the published weight, 30 000, belongs.

    Turning or scaling student or teacher changes nothing (up to `eps`). Since `eps`
    stands inside the logarithm alone, a value can be below 0 by about `eps`.

    Tap embeddings of any widths; the loss was also used with no labels at all.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        variant: `"reference"` or `"paper"`.
        eps: a scalar above 0.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published loss
        is its plain mean (over the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows
            differs or is below 2 (for `"paper"` 3), a dtype is not floating, or an
            option is out of its range.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = pkt(student, teacher)
        >>> print(values.shape, f"{values.mean():.6f}")
        (4,) 0.000440

    Reference:
        Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge
        Transfer", 2018, arXiv 1803.10837.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.one_of("variant", variant, TRANSFER_VARIANTS)
    checks.positive("eps", eps)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    # "paper" leaves the anchor itself out.
    least, why = 3 if variant == "paper" else 2, "a probability alone is 1"
    require_examples("student_features", valid.size, least, why)
    eps = jnp.asarray(eps, student.dtype)
    counted = pair_mask(valid, distinct=variant == "paper")
    teacher_probs, student_probs = (
        _neighborhoods(x, counted, eps) for x in (teacher, student)
    )
    divergence = teacher_probs * (
        jnp.log(teacher_probs + eps) - jnp.log(student_probs + eps)
    )
    if variant == "reference":
        return masked_mean(divergence, 1, counted)
    count = jnp.sum(valid, dtype=jnp.int32).astype(eps.dtype)
    return count * masked_sum(divergence, 1, counted)
