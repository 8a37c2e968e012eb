"""Digests of arrays: what a checkpoint has to compare its arrays with, once read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.core import hosts
from kdjax.core.types import Array


def digest_array(x: Array) -> np.ndarray:
    """Two 32-bit sums over the bits of an array, `[2]` uint32.

    Each element is multiplied with an odd number of its position. So every change of
    one bit changes both sums. They are the same however the array is divided over
    devices. Every process of a run must call it.
    """
    return np.asarray(hosts.fetch_global(_sums(x)))


@jax.jit
def _sums(x: Array) -> Array:
    words = _words(x)
    at = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        at = at * np.uint32(size) + jax.lax.broadcasted_iota(
            jnp.uint32, words.shape, axis
        )
    sums = [
        jnp.sum(words * (_mix(at + salt) | 1), dtype=jnp.uint32)
        for salt in (np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B))
    ]
    return jnp.stack(sums)


def _words(x: Array) -> Array:
    """The bits of an array as 32-bit words; shorter elements fill one each."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jnp.stack([_words(jnp.real(x)), _words(jnp.imag(x))], axis=-1)
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    bits = x.dtype.itemsize * 8
    unsigned = jnp.dtype(f"uint{min(bits, 32)}")
    # Elements of 64 bits become two words in a new last axis.
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _mix(x: Array) -> Array:
    """A number without pattern for each position (the finalizer of MurmurHash3)."""
    steps = ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1))
    return functools.reduce(
        lambda x, step: (x ^ (x >> step[0])) * np.uint32(step[1]), steps, x
    )
