"""Factor transfer (FT)."""

from kdjax.core import checks
from kdjax.core.layout import any_valid, map_pair, subtract_and_snap
from kdjax.core.numerics import l2_normalize, safe_abs
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._features.attention_transfer import _attention

FACTOR_VARIANTS = ("factor", "attention")


def factor_transfer(
    student_features: Array,
    teacher_features: Array,
    *,
    variant: str = "factor",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Factor transfer (FT): L1 distance between normalized factors.

    `"factor"`: `1/(P C) sum_pc |s_pc - t_pc|`, with the whole factor of an example
    divided by its norm, as the paper and its authors' code do. `"attention"`: the
    same of the attention maps `mean_c f_pc^2`, divided by `P`, as RepDistiller does
    with a weight of 200. The default is the published one.

    Scaling either factor by a positive number changes nothing.

    Args:
        student_features: `[batch, ..., channels]`, the translator's factor of the
            student's last map.
        teacher_features: the same shape, the paraphraser's factor of the teacher's
            last map. The paraphraser is an auto-encoder, trained first and frozen. For
            `"attention"` the number of channels is free.
        variant: `"factor"` or `"attention"`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per example, at least float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, a dtype
            is not floating, or the variant is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> student = jnp.array([3.0, 4.0]).reshape(1, 2, 1)
        >>> teacher = jnp.array([1.0, 0.0]).reshape(1, 2, 1)
        >>> values = factor_transfer(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 0.6000
        >>> wider = jnp.concatenate([teacher, teacher], axis=-1)
        >>> print(f"{factor_transfer(student, wider, variant='attention')[0]:.4f}")
        0.6907

    Reference:
        Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", 2018, arXiv 1802.04977.
    """
    checks.one_of("variant", variant, FACTOR_VARIANTS)
    free = variant == "attention"
    pair = map_pair(
        student_features, teacher_features, axis, where, same_channels=not free
    )
    sides = pair.student, pair.teacher
    if variant == "attention":
        keeps = pair.keep, pair.teacher_keep
        units = [
            _attention(x, keep, 2, "mean") for x, keep in zip(sides, keeps, strict=True)
        ]
        return masked_mean(
            safe_abs(subtract_and_snap(*units)), 1, any_valid(pair.keep, -1)
        )
    units = [_unit(x) for x in sides]
    return masked_mean(safe_abs(subtract_and_snap(*units)), (1, 2), pair.keep)


def _unit(x: Array) -> Array:
    """Every example's map divided by its norm."""
    return l2_normalize(x.reshape(x.shape[0], -1)).reshape(x.shape)
