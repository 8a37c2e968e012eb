"""Losses between feature maps seen position by position."""

from collections.abc import Sequence

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import (
    Maps,
    adaptive_mean,
    as_positions,
    check_maps,
    map_pair,
    selected,
    shrunk,
    some,
    unit_gap,
)
from kdjax.core.numerics import l2_normalize, safe_abs, safe_norm, widen_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

ATTENTION_FORMS = ("code", "paper")
ATTENTION_MAPS = ("mean", "max")
FACTOR_FORMS = ("factor", "attention")


def _power(x: Array, power: float | Array) -> Array:
    """`|x|^power`, with gradient 0 at 0."""
    if not isinstance(power, Array) and power == 2:
        return jnp.square(x)
    size = jnp.abs(x)
    zero = size == 0
    raised = jnp.power(jnp.where(zero, 1, size), jnp.asarray(power, x.dtype))
    return jnp.where(zero, 0, raised)


def _attention(x: Array, keep: Array | None, power: float | Array, over: str) -> Array:
    """`[batch, positions]` of length 1: how active each position is."""
    energy = _power(shrunk(x), power)
    reduced = jnp.max(energy, -1) if over == "max" else masked_mean(energy, -1, keep)
    return l2_normalize(reduced)


def attention_transfer(
    student_features: Array,
    teacher_features: Array,
    *,
    form: str = "code",
    power: float | Array = 2.0,
    over: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Difference between where the two networks are active.

    The attention `a_p = mean_c |f_pc|^power` over the positions is brought to length
    1. `"code"`: `1/P sum_p (a^s_p - a^t_p)^2`. `"paper"`: `|a^s - a^t| / 2`, the norm
    itself, with the half of the paper's `beta / 2`. The default is `"code"`: the
    weight in common use, 1000, was tuned with it, for every pair of maps. It assumes
    the mean over the positions, so another resolution is another strength.

    Scaling either map, or permuting its channels, changes nothing; the numbers of
    channels may differ. A map of zeros attends to nothing and has gradient 0, maps of
    one position always agree.

    Args:
        student_features: `[batch, ..., channels]`, the output of a residual group.
        teacher_features: the same shape but for the number of channels, which is
            free. Pool the larger of two sizes first
            (`kdjax.core.layout.adaptive_mean`).
        form: `"code"` or `"paper"`.
        power: the exponent, a scalar of at least 1.
        over: `"mean"` over the channels, or `"max"`: the strongest channel alone.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features of both sides; the positions and
            channels that take part. A position without any such channel is not
            counted.

    Returns:
        `[batch]`, one value per example, at least float32.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is not floating, the power is below 1, or a name is unknown.

    Example:
        >>> student = jnp.array([1.0, 0.0, 0.0, 2.0]).reshape(1, 2, 2, 1)
        >>> teacher = jnp.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
        >>> values = attention_transfer(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.0713

    Reference:
        Zagoruyko, Komodakis, "Paying More Attention to Attention", 2017,
        arXiv 1612.03928.
    """
    checks.one_of("form", form, ATTENTION_FORMS)
    checks.one_of("over", over, ATTENTION_MAPS)
    checks.between("power", power, 1.0, 100.0)
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=False
    )
    gap = unit_gap(
        _attention(pair.student, pair.keep, power, over),
        _attention(pair.teacher, pair.teacher_keep, power, over),
    )
    if form == "paper":
        return safe_norm(gap) / 2
    return masked_mean(jnp.square(gap), 1, some(pair.keep, -1))


def factor_transfer(
    student_features: Array,
    teacher_features: Array,
    *,
    form: str = "factor",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean absolute difference between two factors, each brought to length 1.

    `"factor"`: `1/(P C) sum_pc |s_pc - t_pc|`, with the whole factor of an example
    divided by its norm, as the paper and its authors' code do. `"attention"`: the
    same of the attention maps `mean_c f_pc^2`, divided by `P`, as RepDistiller does
    with a weight of 200. The default is the published one.

    Scaling either factor by a positive number changes nothing.

    Args:
        student_features: `[batch, ..., channels]`, the translator's factor of the
            student's last map.
        teacher_features: the same shape, the paraphraser's factor of the teacher's
            last map. The paraphraser is an auto-encoder, trained first and frozen.
        form: `"factor"` or `"attention"`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example, at least float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, a dtype
            is not floating, or the form is unknown.

    Example:
        >>> student = jnp.array([3.0, 4.0]).reshape(1, 2, 1)
        >>> teacher = jnp.array([1.0, 0.0]).reshape(1, 2, 1)
        >>> values = factor_transfer(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.6000

    Reference:
        Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", 2018, arXiv 1802.04977.
    """
    checks.one_of("form", form, FACTOR_FORMS)
    pair = map_pair(student_features, teacher_features, axis, where)
    sides = pair.student, pair.teacher
    if form == "attention":
        units = [_attention(x, pair.keep, 2, "mean") for x in sides]
        return masked_mean(safe_abs(unit_gap(*units)), 1, some(pair.keep, -1))
    units = [_unit(x) for x in sides]
    return masked_mean(safe_abs(unit_gap(*units)), (1, 2), pair.keep)


def _unit(x: Array) -> Array:
    """Every example's map divided by its norm."""
    return l2_normalize(x.reshape(x.shape[0], -1)).reshape(x.shape)


def _images(student, teacher, axis, where) -> tuple[Array, Array, Array | None]:
    """Both sides as `[batch, height, width, channels]`, and `[batch, channels]`.

    The mask selects channels: a mean over bins would mix positions left out with
    others.
    """
    names = ("student_features", "teacher_features")
    axis = check_maps(names, student, teacher, axis, None)
    checks.rank(names[0], student, 4)
    keep = None
    if where is not None:
        narrow = tuple(n if i in (0, axis) else 1 for i, n in enumerate(student.shape))
        checks.mask("where", where, narrow)
        keep = as_positions(jnp.broadcast_to(where, narrow), axis)[:, 0]
    student, teacher = (
        jnp.moveaxis(x, axis, -1) for x in widen_together(student, teacher)
    )
    wide = None if keep is None else keep[:, None, None, :]
    return selected(student, wide), selected(teacher, wide), keep


def class_attention(
    student_features: Array,
    teacher_features: Array,
    *,
    size: int = 2,
    normalize: bool = True,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean squared difference of the class activation maps, coarse and normalised.

    `1/(K r^2) sum_kp (a^s_pk - a^t_pk)^2`: the map of every class is averaged to
    `r x r` bins and, if `normalize`, divided by its norm over the bins. Then scaling
    a class of either side by a positive number changes nothing.

    Args:
        student_features: `[batch, height, width, classes]`: what the classifier, as a
            1x1 convolution, makes of the last map before the pooling.
        teacher_features: the same shape.
        size: `r`, the bins along each side: 2 for most pairs on CIFAR-100, 4 on
            ImageNet. It may not exceed the maps.
        normalize: whether each class has length 1; on in the published runs.
        axis: the axis of the classes; not the first.
        where: bool, broadcastable to `[batch, 1, 1, classes]`; the classes that take
            part.

    Returns:
        `[batch]`, one value per example, at least float32. The published weight goes
        with the pair of networks: 0.7 to 600 on CIFAR-100, 0.5 on ImageNet.

    Raises:
        ValueError: if shapes differ, are empty or not of rank 4, a dtype is not
            floating, or the size is below 1 or above the maps.

    Example:
        >>> student = jnp.ones((2, 4, 4, 10))
        >>> teacher = student.at[:, :2].set(-1.0)
        >>> print(class_attention(student, teacher))
        [0.5 0.5]

    Reference:
        Guo et al., "Class Attention Transfer Based Knowledge Distillation", 2023,
        arXiv 2304.12777.
    """
    student, teacher, keep = _images(student_features, teacher_features, axis, where)
    checks.count("size", size, 1, min(student.shape[1:3]))
    pooled = [adaptive_mean(x, (size, size), (1, 2)) for x in (student, teacher)]
    maps = [as_positions(x, -1) for x in pooled]
    if normalize:
        maps = [l2_normalize(x, axis=1) for x in maps]
    error = masked_mean(jnp.square(maps[0] - maps[1]), 1)
    return masked_mean(error, 1, keep)


def hierarchical_context(
    student_features: Array,
    teacher_features: Array,
    *,
    sizes: tuple[int, ...] = (4, 2, 1),
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean squared difference of two maps and of their coarser and coarser means.

    `sum_l w_l mean (s_l - t_l)^2 / sum_l w_l`: the maps themselves with weight 1,
    then averaged to 4x4, 2x2 and 1x1 bins, each with half the weight of the level
    before. A level that is not smaller than the height of the maps is left out, and
    does not use up a half.

    Args:
        student_features: `[batch, height, width, channels]`, the student's fused map
            of one level, brought to the teacher's shape.
        teacher_features: the same shape, the teacher's map of that level.
        sizes: the bins along each side, from fine to coarse.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to `[batch, 1, 1, channels]`; the channels that
            take part.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32. The values of all levels are added; the published weight goes
        with the pair of networks (0.6 to 8 on CIFAR-100) and rises from 0 over the
        first 20 epochs.

    Raises:
        ValueError: if shapes differ, are empty or not of rank 4, a dtype is not
            floating, or a size is below 1.

    Example:
        >>> student = jnp.zeros((2, 8, 8, 3))
        >>> print(hierarchical_context(student, student + 2))
        [4. 4.]

    Reference:
        Chen et al., "Distilling Knowledge via Knowledge Review", 2021,
        arXiv 2104.09044.
    """
    if not isinstance(sizes, Sequence):
        raise ValueError(f"sizes: expected numbers of bins, got {sizes!r}")
    for size in sizes:
        checks.count("sizes", size)
    student, teacher, keep = _images(student_features, teacher_features, axis, where)
    gap = student - teacher
    levels = [size for size in sizes if size < gap.shape[1]]
    total, weight, weights = _level(gap, keep), 1.0, 1.0
    for size in levels:
        weight /= 2
        weights += weight
        coarse = adaptive_mean(gap, (size, size), (1, 2))
        total = total + weight * _level(coarse, keep)
    return total / weights


def _level(gap: Array, keep: Array | None) -> Array:
    return masked_mean(masked_mean(jnp.square(gap), (1, 2)), 1, keep)


def masked_imitation(
    student_features: Array,
    teacher_features: Array,
    *,
    importance: Array,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Squared difference at the positions near objects, per unit of their mask.

    `sum_p m_p sum_c (s_pc - t_pc)^2 / (2 sum_p m_p)`. An image whose mask is all 0
    gives 0. A mask of ones makes it `hint_l2` in the convention `"fitnets"`.

    Args:
        student_features: `[batch, ..., channels]`, the map that the detection heads
            read, brought to the teacher's channels by an adapter (3x3 convolution).
        teacher_features: the same shape.
        importance: `m`, `[batch, ...]` without the channels, bool or floating and
            not negative. Published: 1 where some anchor's overlap with a box is above
            half of the best overlap for that box.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part at all.

    Returns:
        `[batch]`, one value per example in squared units of the features, at least
        float32. The mask is counted image by image, as in the paper, so that a value
        does not depend on the rest of the batch; the released code counts that of the
        whole batch. 0.01 is a weight to start with.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes,
            a dtype is wrong, or an importance is negative.

    Example:
        >>> student = jnp.zeros((1, 2, 2, 4))
        >>> mask = jnp.array([[[1.0, 0.0], [0.0, 0.0]]])
        >>> print(masked_imitation(student, student + 1, importance=mask))
        [2.]

    Reference:
        Wang et al., "Distilling Object Detectors with Fine-grained Feature
        Imitation", 2019, arXiv 1906.03609.
    """
    pair = map_pair(student_features, teacher_features, axis, where)
    weight = importance_weights(importance, pair, student_features.shape, axis)
    # Positions without weight are left out by selection: they may hold anything.
    gap = selected(pair.student - pair.teacher, (weight > 0)[:, :, None])
    total = jnp.sum(weight * jnp.sum(jnp.square(gap), -1), 1)
    count = jnp.sum(weight, 1)
    return total / (2 * jnp.where(count == 0, 1, count))


def check_importance(importance: Array, keep: Array | None = None) -> None:
    """Refuse weights that are negative or no numbers where something takes part."""
    if not checks.is_boolean(importance):
        checks.floating("importance", importance)
        keep = jnp.ones(importance.shape, bool) if keep is None else keep
        checks.holds(
            *("importance", lambda np, m, seen: ~seen | ((m >= 0) & (m < np.inf))),
            *("finite numbers of at least 0", importance, keep),
        )


def importance_weights(
    importance, pair: Maps, shape: tuple[int, ...], axis: int
) -> Array:
    """The mask as `[batch, positions]`, 0 where nothing takes part."""
    axis %= len(shape)
    checks.shape("importance", importance, shape[:axis] + shape[axis + 1 :])
    weight, keep = importance.reshape(pair.student.shape[:2]), some(pair.keep, -1)
    check_importance(weight, keep)
    return selected(weight.astype(pair.student.dtype), keep)
