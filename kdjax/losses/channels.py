"""Losses between feature maps seen channel by channel."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import map_pair, shrunk, some
from kdjax.core.numerics import l2_normalize, tempered_log_softmax, widen_together
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array

SELECTIVITY_FORMS = ("described", "released")
SELECTIVITY_KERNELS = ("linear", "polynomial", "gaussian")


def channel_wise(
    student_features: Array,
    teacher_features: Array,
    *,
    temperature: float | Array = 4.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence between the two places a channel looks at, averaged over channels.

    `T^2/C sum_c KL(p_c || q_c)` with `p_c = softmax(teacher_c / T)` and
    `q_c = softmax(student_c / T)`, both over the positions. A constant added to a
    channel of either side changes nothing.

    Args:
        student_features: `[batch, ..., channels]`, a map or the logits of a dense
            prediction, brought to the teacher's shape by an adapter.
        teacher_features: the same shape.
        temperature: a scalar above 0; 4 in the paper.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part. A channel without any such position is not counted.

    Returns:
        `[batch]`, one value per example in nats, at least float32. Weights to
        start with are 3 for the logits of a dense prediction and 50 for features.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, a
            dtype is not floating, or the temperature is not above 0.

    Example:
        >>> student = jnp.zeros((1, 2, 2, 1))
        >>> teacher = jnp.array([9.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
        >>> values = channel_wise(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 1.3826

    Reference:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", 2021,
        arXiv 2011.13256.
    """
    checks.positive("temperature", temperature)
    pair = map_pair(student_features, teacher_features, axis, where)
    log_student = tempered_log_softmax(pair.student, temperature, 1, pair.keep)
    log_teacher = tempered_log_softmax(pair.teacher, temperature, 1, pair.keep)
    share = jnp.exp(log_teacher)
    divergence = masked_sum(share * (log_teacher - log_student), 1, pair.keep)
    scale = jnp.square(jnp.asarray(temperature, divergence.dtype))
    return scale * masked_mean(divergence, 1, some(pair.keep, 1))


def _gram(a: Array, b: Array) -> Array:
    """`[batch, C, D]` inner products over the positions."""
    return jnp.einsum("npc,npd->ncd", a, b, precision=lax.Precision.HIGHEST)


def inter_channel_correlation(
    student_features: Array,
    teacher_features: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Squared distance between the two networks' channel by channel correlations.

    `1/C sum_cd (R^s_cd - R^t_cd)^2`, with `G_cd = sum_p F_pc F_pd` and `R` the matrix
    `G` with every row divided by its norm. Scaling or mirroring a whole map changes
    nothing, nor does one permutation of the positions of a side.

    Args:
        student_features: `[batch, ..., channels]`, the last map before the pooling,
            brought to the teacher's channels by an adapter (1x1 convolution and
            BatchNorm).
        teacher_features: the same shape.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in [0, 4], at least float32. It is divided by
        the channels once, as in the authors' code for CIFAR-100; 2.5 is a weight
        to start with. Their code for ImageNet divides by the number of examples too.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, or a
            dtype is not floating.

    Example:
        >>> student = jnp.ones((1, 2, 2, 2))
        >>> teacher = jnp.eye(2).reshape(1, 2, 1, 2)
        >>> teacher = jnp.concatenate([teacher, teacher], 2)
        >>> values = inter_channel_correlation(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.5858

    Reference:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved
        Knowledge Distillation", 2021, arXiv 2202.03680.
    """
    pair = map_pair(student_features, teacher_features, axis, where)
    rows = [
        l2_normalize(_gram(x, x)) for x in map(shrunk, (pair.student, pair.teacher))
    ]
    gap = jnp.sum(jnp.square(rows[0] - rows[1]), axis=-1)
    return masked_mean(gap, 1, some(pair.keep, 1))


def _squared_norms(x: Array) -> Array:
    return jnp.sum(jnp.square(x), axis=1)


def _distances(a: Array, b: Array) -> Array:
    """`[batch, C, D]` squared distances of the channels, never below 0."""
    norms = _squared_norms(a)[:, :, None] + _squared_norms(b)[:, None, :]
    squared = norms - 2 * _gram(a, b)
    return jnp.where(squared < 0, 0, squared)


def _pairs(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return None
    return a[:, :, None] & b[:, None, :]


def neuron_selectivity(
    student_features: Array,
    teacher_features: Array,
    *,
    kernel: str = "polynomial",
    form: str = "described",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Squared maximum mean discrepancy between the two sets of channel maps.

    `mean k(t, t') + mean k(s, s') - 2 mean k(s, t)` over all pairs of channels, each
    channel a vector over the positions of length 1. The kernels: `"linear"`
    `<a, b>`, `"polynomial"` `<a, b>^2`, `"gaussian"` `exp(-|a - b|^2 / (2 v))` with
    `v` the mean squared distance of all pairs of student and teacher channels
    together, at least 1e-6. The default is `"polynomial"`: the paper found it best and
    its weight is the known one.

    `form="described"` keeps all three terms, so that the value is never negative, and
    is the default. `"released"` leaves the teacher's own out, as the authors' code
    does: to the student the two are one, but for the Gaussian's width.

    Only inner products of channels are held, `C^2` numbers an example. Permuting the
    channels of either side changes nothing, nor does scaling one of them by a
    positive number.

    Args:
        student_features: `[batch, ..., channels]`, the output of the last block of
            convolutions.
        teacher_features: the same shape but for the number of channels, which is
            free. Pool the larger of two sizes first.
        kernel: `"linear"`, `"polynomial"` or `"gaussian"`.
        form: `"described"` or `"released"`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features of both sides; the positions and
            channels that take part. A channel without any such position is not
            counted.

    Returns:
        `[batch]`, one value per example, at least float32. The published weight is 50
        with the polynomial kernel.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is not floating, or the kernel or form is unknown.

    Example:
        >>> student = jnp.ones((1, 2, 2, 3))
        >>> teacher = jnp.eye(4).reshape(1, 2, 2, 4)
        >>> values = neuron_selectivity(student, teacher)
        >>> print(values.shape, f"{values.mean():.2f}")
        (1,) 0.75

    Reference:
        Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer", 2017, arXiv 1707.01219.
    """
    checks.one_of("kernel", kernel, SELECTIVITY_KERNELS)
    checks.one_of("form", form, SELECTIVITY_FORMS)
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=False
    )
    maps = [l2_normalize(x, axis=1) for x in (pair.student, pair.teacher)]
    valid = some(pair.keep, 1), some(pair.teacher_keep, 1)
    ends = ((0, 0), (1, 1), (0, 1))
    masks = [_pairs(valid[i], valid[j]) for i, j in ends]
    compare = _distances if kernel == "gaussian" else _gram
    values = [compare(maps[i], maps[j]) for i, j in ends]
    if kernel == "polynomial":
        values = [jnp.square(x) for x in values]
    if kernel == "gaussian":
        width = _width(values, masks)
        values = [jnp.exp(-x / (2 * width)) for x in values]
    means = [masked_mean(x, (1, 2), m) for x, m in zip(values, masks, strict=True)]
    if form == "released":
        return means[0] - 2 * means[2]
    return means[0] + means[1] - 2 * means[2]


def _width(distances: list[Array], masks: list[Array | None]) -> Array:
    """The mean squared distance over all ordered pairs of channels, `[batch, 1, 1]`."""
    total = count = 0
    for times, x, mask in zip((1, 1, 2), distances, masks, strict=True):
        total += times * masked_sum(x, (1, 2), mask)
        count += times * masked_count(x, (1, 2), mask)
    mean = total / count
    return jnp.where(mean < 1e-6, 1e-6, mean)[:, None, None]


def channel_weighted_hint(
    student_features: Array,
    teacher_features: Array,
    *,
    weights: Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Squared distance between two maps, each channel with a weight of its own.

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
    apart, weights = widen_together(apart, jnp.atleast_2d(weights))
    return jnp.sum(weights * apart, axis=-1)
