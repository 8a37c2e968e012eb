"""Squared gaps of features before the ReLU."""

import jax.numpy as jnp

from kdjax.core.layout import Maps
from kdjax.core.types import Array


def square_gap(gap: Array, pair: Maps) -> Array:
    """The squared gap, NaN where an input is: NaN fails every comparison above it."""
    lost = jnp.isnan(pair.student) | jnp.isnan(pair.teacher)
    return jnp.where(lost, jnp.nan, jnp.square(gap))
