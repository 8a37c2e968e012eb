"""Losses between the similarities of the examples of two batches.

Their value for one example depends on all others, so they mean the global batch, as
those of `kdjax.losses.relation` do. Each costs little more than one Gram matrix of
either side: time `N^2 (D + E)`, memory `N^2`. Flatten a map to `[N, D]` first.
"""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import at_least, embeddings, gram, pairs
from kdjax.core.numerics import l2_normalize, safe_abs, safe_norm
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array

CONGRUENCE_FORMS = ("consecutive", "kernel")
CONGRUENCE_KERNELS = ("bilinear", "gaussian", "mmd")
TRANSFER_FORMS = ("paper", "reference")
_FULL = lax.Precision.HIGHEST
# A variance below this is that of a constant.
_EPS = 1e-12


def similarity_preserving(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference of the two batches' similarity matrices, row by row normalised.

    For the anchor i: `1/N sum_j (g_ij^t - g_ij^s)^2` with `G = Q Q^T`, `Q` the
    features, and every row of `G` divided by `max(|row|, 1e-12)`. Turning or scaling
    either side changes nothing; a shift does.

    Tap the last block of both networks, flattened; the published weight is 3000, on
    the sum over the pairs of layers.

    Args:
        student_features: `[N, D]` features of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        axis: the axis of the features.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        squared Frobenius norm over `N^2`, is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs,
            or a dtype is not floating.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = similarity_preserving(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0421

    Reference:
        Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019,
        arXiv 1907.09682.
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    gap = l2_normalize(gram(teacher)) - l2_normalize(gram(student))
    return masked_mean(jnp.square(gap), axis=1, where=pairs(valid))


def _gaussian(features: Array, gamma: Array, order: int) -> Array:
    """`exp(-gamma |u_i - u_j|^2)` of unit rows, its exponential series cut off."""
    cosine = gram(l2_normalize(features))
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
    count, neighbours = (
        x.astype(gap.dtype) for x in (count, jnp.maximum(count - 1, 1))
    )
    return count / neighbours * masked_sum(product, 1, paired[:, None])


def correlation_congruence(
    student_features: Array,
    teacher_features: Array,
    *,
    form: str = "kernel",
    kernel: str = "gaussian",
    gamma: float | Array = 0.4,
    order: int = 2,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference of the correlations that the examples of each batch have.

    `"kernel"`, the paper's: for the anchor i `1/N sum_j (C_ij^t - C_ij^s)^2` with
    `C_ij = exp(-2 gamma) sum_(p <= order) (2 gamma <u_i, u_j>)^p / p!` and the rows
    `u` of unit length: the Gaussian `exp(-gamma |u_i - u_j|^2)`, its series cut off.
    The paper's two other kernels are `"bilinear"`, `C_ij = <u_i, u_j>`, and `"mmd"`,
    `C_ij = |mean(u_i) - mean(u_j)|`, the mean over the features (our reading; that
    the rows have unit length there too is our choice). Scaling any row changes
    nothing; nor does turning either side, but for `"mmd"`.

    `"consecutive"`, which RepDistiller has from the authors, is another object:
    `sum_d |d_i| |d_(i+1)|` with `d_i = f_i^s - f_i^t`, over neighbouring rows of the
    batch. It depends on their order and needs equal widths; each value belongs to the
    first row of its pair and is scaled by `N / (N - 1)`, the last row has 0. The
    default is the form that was published.

    Tap pooled features, for `"consecutive"` behind a trained linear embedding of
    128 numbers on either side. Weights in use: 100 for `"kernel"` (KD-Zoo), 0.02 for
    `"consecutive"` (RepDistiller).

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ for `"kernel"`.
        form: `"kernel"` or `"consecutive"`.
        kernel: `"gaussian"`, `"bilinear"` or `"mmd"`; of no effect on
            `"consecutive"`. The default is the one with a known setting.
        gamma: inverse squared width of the Gaussian, a scalar above 0.
        order: the last power of the series, at least 1.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        mean over `N^2` entries or over `N - 1` neighbours, is its plain mean (over
        the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, shapes do not fit, a dtype
            is not floating, or a knob is out of its range; for `"consecutive"` also
            for fewer than 2 rows.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = correlation_congruence(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0093

    Reference:
        Peng et al., "Correlation Congruence for Knowledge Distillation", 2019,
        arXiv 1904.01802.
    """
    checks.one_of("form", form, CONGRUENCE_FORMS)
    checks.one_of("kernel", kernel, CONGRUENCE_KERNELS)
    checks.positive("gamma", gamma)
    checks.count("order", order)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    if form == "consecutive":
        checks.same_shape("teacher_features", teacher, "student_features", student)
        at_least("student_features", valid.size, 2, "form 'consecutive' needs pairs")
        return _consecutive(student, teacher, valid)
    gamma = jnp.asarray(gamma, student.dtype)

    def congruence(x: Array) -> Array:
        if kernel == "gaussian":
            return _gaussian(x, gamma, order)
        unit = l2_normalize(x)
        if kernel == "bilinear":
            return gram(unit)
        mean = jnp.mean(unit, axis=1)
        return safe_abs(mean[:, None] - mean[None, :])

    gap = congruence(teacher) - congruence(student)
    return masked_mean(jnp.square(gap), axis=1, where=pairs(valid))


def _neighbourhoods(features: Array, counted: Array, eps: Array) -> Array:
    """Each row's share of similarity with every other, summing to 1."""
    norm = safe_norm(features, keepdims=True)
    # At the zero vector the gradient would be 1 / eps; as in l2_normalize it is 0.
    features = jnp.where(norm == 0, 0, features) / (norm + eps)
    affinity = (gram(features) + 1) / 2
    # Rounding takes the affinity of opposed rows just below 0, its share below -eps.
    affinity = jnp.where(counted & ~(affinity < 0), affinity, 0)
    total = jnp.sum(affinity, axis=1, keepdims=True)
    return affinity / jnp.where(total == 0, 1, total)


def probabilistic_transfer(
    student_features: Array,
    teacher_features: Array,
    *,
    form: str = "reference",
    eps: float | Array = 1e-7,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence between the neighbourhoods of each example in the two batches (PKT).

    `P_ij = k_ij / sum_j k_ij` with `k_ij = (cos(f_i, f_j) + 1) / 2` and the cosine of
    `f / (|f| + eps)`; then for the anchor i, with `h_ij = P_ij^t log((P_ij^t + eps) /
    (P_ij^s + eps))`:

    `"reference"`: `1/N sum_j h_ij`, i itself among the j, as the authors' code has
    it. `"paper"`: `N sum_(j != i) h_ij`, whose mean is the sum over all pairs. The
    default is the first, to which the published weight, 30 000, belongs.

    Turning or scaling either side changes nothing (up to `eps`). Since `eps` stands
    inside the logarithm alone, a value can be below 0 by about `eps`.

    Tap embeddings of any widths; the loss was also used with no labels at all.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        form: `"reference"` or `"paper"`.
        eps: a scalar above 0.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published loss
        is its plain mean (over the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs,
            a dtype is not floating, or a knob is out of its range; for `"paper"` also
            for fewer than 2 rows.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 1, 1], [4, 1, 1], [1, 5, 1], [1, 1, 2]])
        >>> values = probabilistic_transfer(student, teacher)
        >>> print(values.shape, f"{values.mean():.6f}")
        (4,) 0.000440

    Reference:
        Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge
        Transfer", 2018, arXiv 1803.10837.
    """
    checks.one_of("form", form, TRANSFER_FORMS)
    checks.positive("eps", eps)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    eps = jnp.asarray(eps, student.dtype)
    counted = pairs(valid, distinct=form == "paper")
    share, answer = (_neighbourhoods(x, counted, eps) for x in (teacher, student))
    divergence = share * (jnp.log(share + eps) - jnp.log(answer + eps))
    if form == "reference":
        return masked_mean(divergence, 1, counted)
    at_least("student_features", valid.size, 2, "form 'paper' leaves out the anchor")
    count = jnp.sum(valid, dtype=jnp.int32).astype(eps.dtype)
    return count * masked_sum(divergence, 1, counted)


def representational_similarity(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """One minus how well the two batches' tables of dissimilarity correlate.

    With `R_ij = 1 - corr(f_i, f_j)`, the correlation over the features, and `u` the
    entries of `R` over pairs of different examples, less their mean and divided by
    their length: `N/2 sum_j (u_ij^s - u_ij^t)^2`, whose mean is `1 - corr(R^s, R^t)`.
    Scaling or shifting the features of any one example changes nothing. A table whose
    entries are all equal has `u = 0`: the mean is 1/2 if one is, and 0 if both are.

    Args:
        student_features: `[N, D]` features of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        axis: the axis of the features.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32; the plain mean (over the
        examples that take part) is in [0, 2]. Published as a score to search by, the
        mean over pairs of layers; no weight as a loss is in our references.

    Raises:
        ValueError: if a side is not of rank 2, has fewer than 3 examples, the number
            of rows differs, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[1.0, 2, 4], [2, 1, 0], [0, 1, 0], [1, 1, 2]])
        >>> teacher = 3 * student[:, ::-1] + 1
        >>> print(f"{jnp.abs(representational_similarity(student, teacher)).max():.4f}")
        0.0000

    Reference:
        Bashivan, Tensen, DiCarlo, "Teacher Guided Architecture Search", 2019,
        arXiv 1808.01405.
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    why = "two of them give a single dissimilarity"
    at_least("student_features", student.shape[0], 3, why)
    distinct = pairs(valid, distinct=True)

    def table(features: Array) -> Array:
        # One minus a correlation, centred, is minus the correlation, centred.
        centred = features - jnp.mean(features, axis=1, keepdims=True)
        alike = gram(l2_normalize(centred))
        alike = jnp.where(distinct, alike - masked_mean(alike, where=distinct), 0)
        size = safe_norm(jnp.ravel(alike))
        flat = size <= _EPS
        return jnp.where(flat, 0, alike) / jnp.where(flat, 1, size)

    gap = jnp.square(table(student) - table(teacher))
    values = jnp.sum(gap, axis=1)
    return values * masked_count(values, where=valid) / 2
