"""A function over many rows, some at a time."""

from collections.abc import Callable
from typing import Any

from jax import lax

from kdjax.core.types import Array

# Entries of the [chunk, N, N] blocks that rkd_angle and triplet_relation make.
BLOCK = 2**20


def map_rows(function: Callable, rows: Any, chunk: int) -> Array:
    """`lax.map` over rows, `chunk` at a time."""
    # A batch of one is several times slower than none at all.
    return lax.map(function, rows, batch_size=None if chunk == 1 else chunk)
