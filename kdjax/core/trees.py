"""Differences between the entries, shapes and types of two trees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.core.types import PyTree


def is_numeric(value: Any) -> bool:
    """True for arrays, traced values and numbers."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic, bool, int, float))


def find_difference(old: PyTree, new: PyTree) -> tuple[str, str, str] | None:
    """The first entry in which two trees differ: its name, what it was, what it is.

    Values do not count. None for trees of the same entries, shapes and types.

    >>> find_difference({"a": np.zeros(2)}, {"a": np.zeros(3)})
    ('a', 'float32[2]', 'float32[3]')
    >>> find_difference({"a": 1.0}, {"a": 2.0, "b": 1})[0]
    'b'
    """
    before, now = _describe(old), _describe(new)
    for name in sorted({*before, *now}):
        pair = before.get(name, "none"), now.get(name, "none")
        if pair[0] != pair[1]:
            return (name, *pair)
    return None


def _describe(tree: PyTree) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{jnp.result_type(x)}{[*jnp.shape(x)]}" if is_numeric(x) else repr(x)
        )
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
