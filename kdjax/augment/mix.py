"""Mixup (Zhang et al., arXiv 1710.09412) in the paper's extreme form."""

import jax
import jax.numpy as jnp

from kdjax.core import collectives, keys
from kdjax.core.types import Array


def draw_mix(seed: int | Array, step: int | Array) -> Array:
    """The one coefficient of a batch, uniform on [0, 1] (= Beta(1, 1))."""
    key = keys.step_key(seed, "mix", step)
    return jax.random.uniform(key, (), jnp.float32)


def partners(x: Array, axis_name: str | None = None) -> Array:
    """The row that each row is mixed with: its neighbour in the global batch."""
    return collectives.roll_one(x, axis_name)


def apply_mix(images: Array, weight: Array, axis_name: str | None = None) -> Array:
    """`weight * images + (1 - weight) * partners(images)`."""
    return weight * images + (1.0 - weight) * partners(images, axis_name)
