"""Focal and global distillation (FGD): its focal part."""

import math

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import any_valid, map_pair, subtract_and_snap
from kdjax.core.numerics import safe_abs, tempered_log_softmax
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array
from kdjax.losses._dense._importance import importance_weights


def _attention(
    size: Array, temperature: Array, keep: Array | None
) -> tuple[Array, Array]:
    """Softmax of mean absolute values, and over how many of them it is."""
    share = jnp.exp(tempered_log_softmax(size, temperature, 1, keep))
    count = jnp.broadcast_to(masked_count(size, 1, keep), size.shape[:1])[:, None]
    return (share if keep is None else jnp.where(keep, share, 0)), count


def fgd(
    student_features: Array,
    teacher_features: Array,
    *,
    foreground: Array,
    alpha: float | Array = 5e-5,
    beta: float | Array = 2.5e-5,
    gamma: float | Array = 5e-5,
    temperature: float | Array = 0.5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Focal distillation (FGD): feature distance of foreground and background apart.

    With the attention of positions `A_p = P softmax_p(mean_c |f_pc| / T)` and of
    channels `B_c = C softmax_c(mean_p |f_pc| / T)`:
    `sum_p (alpha m_p + beta n_p) A_p^t sum_c B_c^t (s_pc - t_pc)^2 + gamma (sum_p
    |A_p^s - A_p^t| + sum_c |B_c^s - B_c^t|)`, with `m` the foreground and `n` one over
    the number of the other positions, there, and 0 in the foreground.

    The global part of the method passes features through trained context blocks,
    whose outputs are compared by `hint_l2` (a sum, weight 5e-7).

    Args:
        student_features: `[batch, ..., channels]`, each map of the neck, brought to
            the teacher's channels by an adapter.
        teacher_features: the same shape.
        foreground: `m`, floating `[batch, ...]` without the channels, not negative;
            see `box_weights`.
        alpha: weight of the foreground. These three are proportions of the method;
            the defaults are those of its two-stage detectors.
        beta: weight of the background.
        gamma: weight of the attention.
        temperature: `T`, a scalar above 0.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per image, at least float32, with weight 1, summed over
        the maps.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is wrong, the temperature is not above 0, or a weight is not a single
            finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> from kdjax.targets import box_weights
        >>> teacher = jnp.ones((1, 2, 2, 3))
        >>> objects = box_weights(jnp.array([[[0.0, 0.0, 1.0, 2.0]]]), size=(2, 2))
        >>> values = fgd(
        ...     2 * teacher, teacher, foreground=objects, alpha=1.0, beta=0.5
        ... )
        >>> print(f"{values.mean():.4f}")
        4.5000

    Reference:
        Yang et al., "Focal and Global Knowledge Distillation for Detectors", 2021,
        arXiv 2111.11837.
    """
    checks.temperature("temperature", temperature)
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        checks.between(name, weight, -math.inf)
    pair = map_pair(student_features, teacher_features, axis, where)
    checks.floating("foreground", foreground)
    objects = importance_weights(foreground, pair, student_features.shape, axis)
    positions, channels = any_valid(pair.keep, 2), any_valid(pair.keep, 1)
    background = objects == 0 if positions is None else (objects == 0) & positions
    count = masked_count(objects, 1, background)[:, None]
    background = jnp.where(background, 1 / count, 0)
    scale = jnp.asarray(temperature, objects.dtype)

    def attentions(x: Array) -> list[tuple[Array, Array]]:
        size = safe_abs(x)
        return [
            _attention(masked_mean(size, 2, pair.keep), scale, positions),
            _attention(masked_mean(size, 1, pair.keep), scale, channels),
        ]

    student_maps, teacher_maps = attentions(pair.student), attentions(pair.teacher)
    attention, lit = (share * times for share, times in teacher_maps)
    alpha, beta, gamma = (jnp.asarray(x, objects.dtype) for x in (alpha, beta, gamma))
    gap = jnp.sum(lit[:, None] * jnp.square(pair.student - pair.teacher), 2)
    value = jnp.sum((alpha * objects + beta * background) * attention * gap, 1)
    for (share, times), (target, _) in zip(student_maps, teacher_maps, strict=True):
        value += gamma * jnp.sum(times * safe_abs(subtract_and_snap(share, target)), 1)
    return value
