"""Random keys, derived from what they are for and never carried along.

Any draw of any example can be made again, after any restart, on any number of devices
and at any batch size, because its key depends on nothing else than its name.
"""

import zlib

import jax
import jax.numpy as jnp

from kdjax.core.types import Array


def purpose_key(seed: int | Array, purpose: str) -> Array:
    """The key of (seed, purpose). `seed` may be traced, so that seeds can be mapped."""
    number = zlib.crc32(purpose.encode()) & 0x7FFFFFFF
    return jax.random.fold_in(jax.random.key(seed), number)


def step_key(seed: int | Array, purpose: str, step: int | Array) -> Array:
    """The key of a draw for a whole batch: (seed, purpose, step)."""
    return jax.random.fold_in(purpose_key(seed, purpose), step)


def example_keys(
    seed: int | Array, purpose: str, epochs: Array, examples: Array
) -> Array:
    """One key an example: (seed, purpose, epoch, example id).

    epochs, examples: `[batch]` int32. Returns `[batch]` keys.
    """
    base = purpose_key(seed, purpose)

    def one(epoch: Array, example: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(base, epoch), example)

    return jax.vmap(one)(jnp.asarray(epochs), jnp.asarray(examples))
