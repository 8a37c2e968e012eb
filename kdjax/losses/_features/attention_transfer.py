"""Attention transfer (AT)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import any_valid, map_pair, rescale, subtract_and_snap
from kdjax.core.numerics import l2_normalize, safe_norm
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

ATTENTION_VARIANTS = ("code", "paper")
ATTENTION_MAPS = ("mean", "max")


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
    energy = _power(rescale(x), power)
    reduced = jnp.max(energy, -1) if over == "max" else masked_mean(energy, -1, keep)
    return l2_normalize(reduced)


def attention_transfer(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "code",
    power: float | Array = 2.0,
    over: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Attention transfer (AT): distance between normalized spatial attention maps.

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
        variant: `"code"` or `"paper"`.
        power: the exponent, a scalar of at least 1.
        over: `"mean"` over the channels, or `"max"`: the strongest channel alone.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features of student and teacher; the positions
            and channels that take part. A position without any such channel is not
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
    checks.one_of("variant", variant, ATTENTION_VARIANTS)
    checks.one_of("over", over, ATTENTION_MAPS)
    checks.between("power", power, 1.0, 100.0)
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=False
    )
    gap = subtract_and_snap(
        _attention(pair.student, pair.keep, power, over),
        _attention(pair.teacher, pair.teacher_keep, power, over),
    )
    if variant == "paper":
        return safe_norm(gap) / 2
    return masked_mean(jnp.square(gap), 1, any_valid(pair.keep, -1))
