"""Weights of positions, as losses of dense predictions take them."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import Maps, any_valid, apply_mask
from kdjax.core.types import Array


def check_importance(importance: Array, keep: Array | None = None) -> None:
    """Refuse weights that are negative or no numbers where something takes part."""
    if not checks.is_boolean(importance):
        checks.floating("importance", importance)
        keep = jnp.ones(importance.shape, bool) if keep is None else keep
        checks.holds(
            *(
                "importance",
                lambda np, m, counted: ~counted | ((m >= 0) & (m < np.inf)),
            ),
            *("finite numbers of at least 0", importance, keep),
        )


def importance_weights(
    importance, pair: Maps, shape: tuple[int, ...], axis: int
) -> Array:
    """The mask as `[batch, positions]`, 0 where nothing takes part."""
    axis %= len(shape)
    checks.shape("importance", importance, shape[:axis] + shape[axis + 1 :])
    weight, keep = importance.reshape(pair.student.shape[:2]), any_valid(pair.keep, -1)
    check_importance(weight, keep)
    return apply_mask(weight.astype(pair.student.dtype), keep)
