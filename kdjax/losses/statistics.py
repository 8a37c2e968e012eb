"""Losses that model features as normal: their information, their batch statistics."""

import math

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import (
    as_positions,
    channel_axis,
    map_pair,
    per_channel,
    selected,
)
from kdjax.core.numerics import safe_norm, widen, widen_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

STATISTICS_FORMS = ("l2", "kl")


def initial_log_variance(variance: float = 5.0, eps: float = 1e-5) -> float:
    """The parameter at which `variational_information` starts with this variance.

    `x + log(1 - exp(-x))` with `x = variance - eps`: the inverse of the softplus.

    Raises:
        ValueError: if `eps` is not above 0 or the variance not above `eps`.

    Example:
        >>> print(f"{initial_log_variance():.6f}")
        4.993229
    """
    checks.positive("eps", eps)
    checks.positive("variance", variance)
    checks.positive("variance - eps", variance - eps)
    x = variance - eps
    return x + math.log(-math.expm1(-x))


def variational_information(
    student_features: Array,
    teacher_features: Array,
    *,
    log_variance: Array,
    eps: float | Array = 1e-5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Negative log-likelihood of the teacher's features under the student's guess.

    `1/(P C) sum_pc ((t_pc - s_pc)^2 / v_c + log v_c) / 2` with the variance
    `v_c = softplus(a_c) + eps`; the constant `log(2 pi) / 2` is left out. Up to
    constants it bounds the mutual information of the two layers from below. It can be
    negative, and is least where `v_c` is the mean squared residual of the channel.

    Args:
        student_features: `[batch, ..., channels]`, the mean that a regressor of 1x1
            convolutions makes of the student's features.
        teacher_features: the same shape; all stages, and the last layer.
        log_variance: `a`, `[channels]` or a scalar array: parameters trained with the
            student, without weight decay, all at `initial_log_variance()` at first.
        eps: the least variance, a scalar above 0.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example in nats, at least float32. The published loss
        adds all pairs of layers, with weight 1.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than two axes, a
            dtype is not floating, or `eps` is not above 0.

    Example:
        >>> a = jnp.full(8, initial_log_variance())
        >>> student = jnp.zeros((1, 4, 4, 8))
        >>> values = variational_information(student, student + 1, log_variance=a)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.9047

    Reference:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer",
        2019, arXiv 1904.05835.
    """
    checks.positive("eps", eps)
    pair = map_pair(student_features, teacher_features, axis, where, rank=2)
    raw = per_channel("log_variance", log_variance, pair)
    variance = jax.nn.softplus(raw) + jnp.asarray(eps, raw.dtype)
    residual = jnp.square(pair.teacher - pair.student)
    return masked_mean((residual / variance + jnp.log(variance)) / 2, (1, 2), pair.keep)


def batch_norm_statistics(
    features: Array,
    *,
    mean: Array,
    variance: Array,
    form: str = "l2",
    eps: float | Array = 1e-5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """How far the statistics of a batch are from those a BatchNorm has stored.

    With mean `m` and (biased) variance `v` of each channel over batch and positions,
    and the stored `m0`, `v0`: `"l2"` is `|m - m0| + |v - v0|`, norms over the
    channels, as in DeepInversion. `"kl"` is `sum_c KL(N(m0, v0) || N(m, v))`, as in
    The Knowledge Within. Both are 0 where the statistics agree. The default is
    `"l2"`, the more used of the two.

    It compares no student with a teacher and its value belongs to the whole batch:
    every example is given the same one, so that the mean is the loss, and the batch
    is the global one as for the kernels of `RELATION`. Networks without BatchNorm
    store no such statistics.

    Args:
        features: `[batch, ..., channels]`, what goes into a BatchNorm of the teacher,
            of made-up images. Take every BatchNorm and add.
        mean: `[channels]`, the stored mean.
        variance: `[channels]`, the stored variance. Flax stores the biased one, torch
            the unbiased.
        form: `"l2"` or `"kl"`.
        eps: the least variance that `"kl"` sees on either side, a scalar above 0.
        axis: the axis of the channels; not the first.
        where: `[batch]` bool; the examples that take part. The others influence
            nothing and get 0.

    Returns:
        `[batch]`, the same value for all examples that take part, at least float32.
        DeepInversion weighs it with 10 on CIFAR-10 and 0.01 on ImageNet.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than two axes, a
            dtype is not floating, a variance is negative, or the form is unknown.

    Example:
        >>> features = jnp.array([[-1.0], [3.0]])
        >>> mean, variance = jnp.array([0.0]), jnp.array([1.0])
        >>> print(batch_norm_statistics(features, mean=mean, variance=variance))
        [4. 4.]

    Reference:
        Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via
        DeepInversion", 2020, arXiv 1912.08795; Haroush et al., "The Knowledge Within:
        Methods for Data-Free Model Compression", 2020, arXiv 1912.01274.
    """
    checks.one_of("form", form, STATISTICS_FORMS)
    checks.positive("eps", eps)
    channels = _check_statistics(features, mean, variance, axis, where)
    rows = as_positions(widen(features), channels)
    rows, mean, variance = widen_together(rows, mean, variance)
    keep = None if where is None else jnp.asarray(where)[:, None, None]
    found, spread = _moments(rows, keep)
    if form == "l2":
        value = safe_norm(found - mean) + safe_norm(spread - variance)
    else:
        floor = jnp.asarray(eps, rows.dtype)
        stored, spread = _at_least(variance, floor), _at_least(spread, floor)
        ratio = (stored + jnp.square(found - mean)) / spread
        value = jnp.sum(jnp.log(spread / stored) + ratio - 1) / 2
    value = jnp.broadcast_to(value, rows.shape[:1])
    return value if where is None else jnp.where(where, value, 0)


def _check_statistics(features, mean, variance, axis, where) -> int:
    checks.floating("features", features)
    checks.rank("features", features, 2, at_least=True)
    checks.not_empty("features", features)
    channels = channel_axis(axis, "features", features)
    for name, x in (("mean", mean), ("variance", variance)):
        checks.floating(name, x)
        checks.shape(name, x, (features.shape[channels],))
    checks.holds("variance", lambda np, v: v >= 0, "numbers of at least 0", variance)
    if where is not None:
        checks.mask("where", where, features.shape[:1])
        checks.shape("where", where, features.shape[:1])
    return channels


def _moments(rows: Array, keep: Array | None) -> tuple[Array, Array]:
    """Mean and biased variance of every channel, in two passes."""
    rows = selected(rows, keep)
    mean = masked_mean(rows, (0, 1), keep)
    spread = masked_mean(jnp.square(rows - mean[None, None, :]), (0, 1), keep)
    return mean, spread


def _at_least(x: Array, floor: Array) -> Array:
    return jnp.where(x < floor, floor, x)
