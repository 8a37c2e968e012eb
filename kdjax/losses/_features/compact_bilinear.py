"""Compact bilinear pooling."""

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote_together
from kdjax.core.types import Array


def _sketch(x: Array, bucket: Array, sign: Array, width: int) -> Array:
    """Count sketch: every entry, with its sign, added to its bucket."""
    empty = jnp.zeros((*x.shape[:-1], width), x.dtype)
    return empty.at[..., bucket].add(x * sign.reshape((1,) * (x.ndim - 1) + (-1,)))


def compact_bilinear(
    first: Array, second: Array, *, key: Array, width: int = 512
) -> Array:
    """Compact bilinear pooling: a sketch of the outer product of two vectors.

    A tensor sketch: the circular convolution of the count sketches of the two. For
    `f = compact_bilinear(a, b)` and `g = compact_bilinear(c, d)` with one key,
    `<f, g>` is `<a, c> <b, d>` on average over the keys, with an error that falls as
    `1 / sqrt(width)`. The key fixes the hashes: keep it for all of training.

    Args:
        first: `[..., D]`.
        second: `[..., E]`.
        key: a random key.
        width: how many numbers to make, at least 1.

    Returns:
        `[..., width]`, at least float32.

    Raises:
        ValueError: if the shapes differ in more than the last axis or are empty, a
            dtype is not floating, or the width is not above 0.

    Example:
        >>> features = compact_bilinear(
        ...     jnp.ones((4, 3)), jnp.ones((4, 5)), key=jax.random.key(0), width=64
        ... )
        >>> print(features.shape)
        (4, 64)

    Reference:
        Gao, Beijbom, Zhang, Darrell, "Compact Bilinear Pooling", 2015,
        arXiv 1511.06062; as two teachers' features: Zhang, Peng, IJCAI 2018.
    """
    for name, x in (("first", first), ("second", second)):
        checks.floating(name, x)
        checks.rank(name, x, 1, at_least=True)
        checks.not_empty(name, x)
    checks.shape("second", second, (*first.shape[:-1], second.shape[-1]))
    checks.count("width", width)

    def spectrum(x: Array, part: Array) -> Array:
        where, which = jax.random.split(part)
        bucket = jax.random.randint(where, x.shape[-1:], 0, width)
        sign = jax.random.rademacher(which, x.shape[-1:], x.dtype)
        return jnp.fft.rfft(_sketch(x, bucket, sign, width))

    keys = jax.random.split(key)
    first, second = promote_together(first, second)
    return jnp.fft.irfft(spectrum(first, keys[0]) * spectrum(second, keys[1]), width)
