"""Variational information distillation (VID)."""

import math

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import map_pair, per_channel
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def vid_log_variance(variance: float = 5.0, eps: float = 1e-5) -> float:
    """Initial variance parameter of `vid` for a given variance.

    `x + log(1 - exp(-x))` with `x = variance - eps`: the inverse of the softplus.

    Raises:
        ValueError: if `eps` is not above 0 or the variance not above `eps`.

    Example:
        >>> print(f"{vid_log_variance():.6f}")
        4.993229
    """
    checks.positive("eps", eps)
    checks.positive("variance", variance)
    checks.positive("variance - eps", variance - eps)
    x = variance - eps
    return x + math.log(-math.expm1(-x))


def vid(
    student_features: Array,
    teacher_features: Array,
    *,
    log_variance: Array,
    eps: float | Array = 1e-5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Variational information distillation (VID): Gaussian negative log-likelihood.

    `1/(P C) sum_pc ((t_pc - s_pc)^2 / v_c + log v_c) / 2` with the variance
    `v_c = softplus(a_c) + eps`; the constant `log(2 pi) / 2` is left out. Up to
    constants it bounds the mutual information of the two layers from below. It can be
    negative, and is least where `v_c` is the mean squared residual of the channel.

    Args:
        student_features: `[batch, ..., channels]`, the mean that a regressor of 1x1
            convolutions makes of the student's features.
        teacher_features: the same shape; all stages, and the last layer.
        log_variance: `a`, `[channels]` or a scalar array: parameters trained with the
            student, without weight decay, all at `vid_log_variance()` at first.
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
        >>> a = jnp.full(8, vid_log_variance())
        >>> student = jnp.zeros((1, 4, 4, 8))
        >>> values = vid(student, student + 1, log_variance=a)
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


def _at_least(x: Array, floor: Array) -> Array:
    return jnp.where(x < floor, floor, x)
