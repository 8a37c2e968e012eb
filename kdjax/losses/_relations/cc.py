"""Correlation congruence (CC, CCKD)."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import (
    embeddings,
    gram,
    pair_mask,
    require_examples,
    squared_distances,
)
from kdjax.core.numerics import l2_normalize, safe_abs
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

CONGRUENCE_VARIANTS = ("consecutive", "kernel")
CONGRUENCE_KERNELS = ("bilinear", "gaussian", "mmd")


def _gaussian(rows: Array, gamma: Array, order: int) -> Array:
    """`exp(-gamma |u_i - u_j|^2)` of unit rows, its exponential series cut off."""
    cosine = gram(rows)
    series = jnp.ones_like(cosine)
    # From the inside out, so that no power of a zero is ever differentiated.
    for power in range(order, 0, -1):
        series = 1 + series * (2 * gamma * cosine) / power
    return jnp.exp(-2 * gamma) * series


def _consecutive(student: Array, teacher: Array, valid: Array) -> Array:
    """Products of the gaps of each row and the next row that takes part."""
    rows = valid.size
    gap = jnp.abs(student - teacher)
    here = jnp.where(valid, jnp.arange(rows), rows)
    ahead = jnp.append(lax.cummin(here, reverse=True)[1:], rows)
    paired = valid & (ahead < rows)
    product = gap * gap[jnp.minimum(ahead, rows - 1)]
    # The mean over n rows is to be the mean over the n - 1 pairs.
    count = jnp.sum(valid, dtype=jnp.int32)
    count, neighbors = (x.astype(gap.dtype) for x in (count, jnp.maximum(count - 1, 1)))
    return count / neighbors * masked_sum(product, 1, paired[:, None])


@over_global_batch()
def cc(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "kernel",
    kernel: str = "gaussian",
    gamma: float | Array = 0.4,
    order: int | None = 2,
    normalize: bool = True,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Correlation congruence (CC): squared distance between kernel matrices.

    `"kernel"`, the paper's: for the anchor i `1/N sum_j (C_ij^t - C_ij^s)^2` with
    `C_ij = exp(-2 gamma) sum_(p <= order) (2 gamma <u_i, u_j>)^p / p!` and the rows
    `u` of unit length: the Gaussian `exp(-gamma |u_i - u_j|^2)`, its series cut off.
    The paper's two other kernels are `"bilinear"`, `C_ij = <u_i, u_j>`, and `"mmd"`,
    `C_ij = |mean(u_i) - mean(u_j)|`, the mean over the features (our reading; that
    the rows have unit length there too is our choice). Scaling any row changes
    nothing; nor does turning student or teacher, but for `"mmd"`.

    `"consecutive"`, which RepDistiller has from the authors, is another object:
    `sum_d |d_i| |d_(i+1)|` with `d_i = f_i^s - f_i^t`, over neighboring rows of the
    batch. It depends on their order and needs equal widths; each value belongs to the
    first row of its pair and is scaled by `N / (N - 1)`, the last row has 0. The
    default is the form that was published.

    Tap pooled features, for `"consecutive"` behind a trained linear embedding of
    128 numbers for each network. Weights in use: 100 for `"kernel"` (KD-Zoo), 0.02 for
    `"consecutive"` (RepDistiller).

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ for `"kernel"`.
        variant: `"kernel"` or `"consecutive"`.
        kernel: `"gaussian"`, `"bilinear"` or `"mmd"`; of no effect on
            `"consecutive"`. The default is the one with a known setting.
        gamma: inverse squared width of the Gaussian, a scalar above 0.
        order: the last power of the series, at least 1; None for the Gaussian itself,
            `exp(-gamma |u_i - u_j|^2)`.
        normalize: whether the rows `u` have unit length, as published, or are the
            features as they are. The series equals the Gaussian for unit rows alone:
            pass `order=None` for a Gaussian of other rows.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        mean over `N^2` entries or over `N - 1` neighbors, is its plain mean (over
        the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, shapes do not fit, there
            are fewer than 2 rows, a dtype is not floating, or an option is out of its
            range.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = cc(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0093
        >>> values = cc(student, teacher, order=None, normalize=False)
        >>> print(f"{values.mean():.4f}")
        0.1202

    Reference:
        Peng et al., "Correlation Congruence for Knowledge Distillation", 2019,
        arXiv 1904.01802.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.one_of("variant", variant, CONGRUENCE_VARIANTS)
    checks.one_of("kernel", kernel, CONGRUENCE_KERNELS)
    checks.positive("gamma", gamma)
    checks.boolean("normalize", normalize)
    if order is not None:
        checks.count("order", order)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 2, "each needs another")
    if variant == "consecutive":
        checks.same_shape("teacher_features", teacher, "student_features", student)
        return _consecutive(student, teacher, valid)
    gamma = jnp.asarray(gamma, student.dtype)

    def congruence(x: Array) -> Array:
        rows = l2_normalize(x) if normalize else x
        if kernel == "gaussian":
            if order is None:
                return jnp.exp(-gamma * squared_distances(rows, valid))
            return _gaussian(rows, gamma, order)
        if kernel == "bilinear":
            return gram(rows)
        mean = jnp.mean(rows, axis=1)
        return safe_abs(mean[:, None] - mean[None, :])

    gap = congruence(teacher) - congruence(student)
    return masked_mean(jnp.square(gap), axis=1, where=pair_mask(valid))
