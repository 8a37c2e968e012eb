"""Hint losses: distances between intermediate activations."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings
from kdjax.core.layout import any_valid, map_pair
from kdjax.core.numerics import l2_normalize, promote_together, safe_abs, safe_sqrt
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

HINT_VARIANTS = ("fitnets", "mean", "partial")


def hint_l2(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Hint (FitNets): squared distance between student and teacher features.

    `"mean"`: `1/(P C) sum_pc (s_pc - t_pc)^2` over positions and channels.
    `"fitnets"`: `1/(2 P) sum_pc (s_pc - t_pc)^2`, half the squared error summed over
    the channels and averaged over the positions, as the paper's own code had it.
    `"partial"`: `sum_pc (s_pc - t_pc)^2` over the entries at which student or teacher
    is positive: what an unofficial code of self-distillation by depth sums, with 1e-6.
    The first two differ by a factor of `C / 2`, so a weight belongs to its variant.
    The default is `"mean"`: the weight in common use, 100, was tuned with it
    (RepDistiller, mdistiller), and it does not grow with the width of the hint.

    Args:
        student_features: `[batch, ..., channels]`, already brought to the teacher's
            shape by an adapter.
        teacher_features: the same shape.
        variant: `"mean"`, `"fitnets"` or `"partial"`.
        axis: the axis of the channels; not the first, and of effect on `"fitnets"`
            alone.
        where: bool, broadcastable to the features; the positions and channels that
            take part. A position without any such channel is not counted.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, or the variant is unknown.

    Example:
        >>> student = jnp.zeros((2, 4, 4, 8))
        >>> print(hint_l2(student, student + 1))
        [1. 1.]
        >>> print(hint_l2(student, student + 1, variant="fitnets"))
        [4. 4.]

    Reference:
        Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, arXiv 1412.6550.
    """
    checks.matching_pair("features", student_features, teacher_features)
    checks.rank("student_features", student_features, 2, at_least=True)
    channels = checks.axis(axis, "student_features", student_features)
    if channels == 0:
        checks.refuse("axis", "the axis of the channels", "the batch axis 0")
    checks.one_of("variant", variant, HINT_VARIANTS)
    checks.mask("where", where, student_features.shape)
    student, teacher = promote_together(student_features, teacher_features)
    gap = student - teacher
    if where is not None:
        where = jnp.broadcast_to(where, gap.shape)
        gap = jnp.where(where, gap, 0)
    if variant == "mean":
        return masked_mean(jnp.square(gap), range(1, gap.ndim), where)
    if variant == "partial":
        lit = ~((student <= 0) & (teacher <= 0))
        lit = lit if where is None else lit & where
        return masked_sum(jnp.square(gap), range(1, gap.ndim), lit)
    error = masked_sum(jnp.square(gap), channels, where) / 2
    counted = None if where is None else jnp.any(where, channels)
    return masked_mean(error, range(1, error.ndim), counted)


def hint_l1(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """L1 hint: mean absolute difference between student and teacher features.

    `1/(P C) sum_pc |s_pc - t_pc|` over positions and channels. Where the two are
    equal the gradient is 0. Less moved by single large activations than `hint_l2`;
    with maps brought to unit length first it is `factor_transfer`.

    Args:
        student_features: `[batch, ..., channels]`, already brought to the teacher's
            shape by an adapter. Tap where `hint_l2` taps.
        teacher_features: the same shape.
        axis: the axis of the channels; not the first, and of no effect.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in units of the features, at least float32.
        No weight is in common use: it depends on the scale of the features.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, or a
            dtype is not floating.

    Example:
        >>> student = jnp.zeros((2, 4, 4, 8))
        >>> print(hint_l1(student, student - 3))
        [3. 3.]

    Reference:
        Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, arXiv 1412.6550 (the
        hint; there with squares).
    """
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    return masked_mean(safe_abs(pair.student - pair.teacher), (1, 2), pair.keep)


def hint_cosine(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Cosine hint (DistilBERT): one minus the cosine at each position.

    `1/P sum_p (1 - <s_p, t_p> / (|s_p| |t_p|))`, taken as half the squared distance
    of the unit vectors: the same number, but exact where the two nearly agree. A
    vector of zeros has no direction: it costs 1, with gradient 0.

    Args:
        student_features: `[batch, ..., channels]`, already brought to the teacher's
            shape by an adapter; hidden states `[batch, tokens, width]`, for example.
        teacher_features: the same shape.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions (tokens) and
            channels that take part. A position without any such channel is not
            counted.

    Returns:
        `[batch]`, one value per example in [0, 2], at least float32. The published
        weight is 1, with 5 for the soft targets.

    Raises:
        ValueError: as in `hint_l1`.

    Example:
        >>> student = jnp.array([[[3.0, 0.0], [0.0, 2.0]]])
        >>> teacher = jnp.array([[[1.0, 0.0], [5.0, 0.0]]])
        >>> print(hint_cosine(student, teacher))
        [0.5]

    Reference:
        Sanh et al., "DistilBERT, a distilled version of BERT", 2019,
        arXiv 1910.01108.
    """
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    units = [l2_normalize(x) for x in (pair.student, pair.teacher)]
    apart = jnp.sum(jnp.square(units[0] - units[1]), axis=-1) / 2
    lost = jnp.all(units[0] == 0, -1) | jnp.all(units[1] == 0, -1)
    cost = jnp.where(lost, 1, apart)
    return masked_mean(cost, 1, any_valid(pair.keep, -1))


@over_global_batch()
def hint_norm(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Hint of Be Your Own Teacher (BYOT): the norm of the batch's feature gap.

    `N |d_i|^2 / |D|` with `d_i = s_i - t_i` and `|D| = (sum_i |d_i|^2)^(1/2)`: each
    example's share, so that the mean is `|D|`. The gradient has the same length
    however far apart the two are, and is 0 where they are equal. What the code of
    self-distillation by depth uses, in place of the paper's square (`hint_l2`).

    Args:
        student_features: `[N, D]` features of the global batch, flattened, and brought
            to the teacher's width by an adapter.
        teacher_features: the same shape.
        axis: the axis of the features.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example in units of the features, at least float32. The
        distance of the batches is its plain mean (over the examples that take part).
        No weight is in our references; the distance grows with the root of the batch.

    Raises:
        ValueError: if an argument is empty or not of rank 2, shapes differ, or a dtype
            is not floating.

    Example:
        >>> student = jnp.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
        >>> print(hint_norm(student, jnp.zeros((4, 2))))
        [4. 4. 4. 4.]

    Reference:
        Zhang et al., "Be Your Own Teacher", 2019, arXiv 1905.08094, as its authors'
        later code has it.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.matching_pair("features", student_features, teacher_features)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    squared = jnp.sum(jnp.square(student - teacher), axis=1)
    norm = safe_sqrt(jnp.sum(squared))
    share = squared / jnp.where(norm == 0, 1, norm)
    return share * masked_count(share, where=valid)


def channel_weighted_hint(
    student_features: Array,
    teacher_features: Array,
    *,
    weights: Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """L2T-ww: squared feature distance with a weight for each channel.

    `sum_c w_c mean_p (s_pc - t_pc)^2` over the positions `p`. With equal weights `1/C`
    it is `hint_l2`. The weights may be learned: the gradient reaches them.

    Args:
        student_features: `[batch, ..., channels]`, brought to the teacher's channels
            by an adapter and to its size by resizing.
        teacher_features: the same shape.
        weights: `[channels]` or `[batch, channels]`; the published ones are a softmax
            of a linear map of the teacher's pooled features.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example, at least float32. The published weight is
        0.5, times a learned one for each pair of stages.

    Raises:
        ValueError: if shapes differ, do not fit or are empty, or a dtype is not
            floating.

    Example:
        >>> student = jnp.zeros((1, 4, 2))
        >>> teacher = jnp.ones((1, 4, 2)) * jnp.array([[[1.0, 2.0]]])
        >>> weights = jnp.array([0.75, 0.25])
        >>> print(channel_weighted_hint(student, teacher, weights=weights))
        [1.75]

    Reference:
        Jang, Lee, Hwang, Shin, "Learning What and Where to Transfer", 2019,
        arXiv 1905.05901.
    """
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    rows, _, channels = pair.student.shape
    checks.floating("weights", weights)
    shape = (channels,) if weights.ndim == 1 else (rows, channels)
    checks.shape("weights", weights, shape)
    apart = masked_mean(jnp.square(pair.student - pair.teacher), 1, pair.keep)
    apart, weights = promote_together(apart, jnp.atleast_2d(weights))
    return jnp.sum(weights * apart, axis=-1)
