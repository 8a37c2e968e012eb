"""A batch in parts, one after another, with the means over them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.core.types import PyTree, View


class Part(NamedTuple):
    """A part of a batch: its views, the rows of its examples, and its number."""

    view: View
    rows: PyTree
    number: Any


def over_parts(
    function: Callable[[PyTree, Part], tuple[PyTree, PyTree]],
    state: PyTree,
    view: View,
    rows: PyTree,
    parts: int,
) -> tuple[PyTree, PyTree]:
    """The state after all parts of a batch, and the means of what each gives.

    Example i is in part `i % parts`, so that each device has its share of every part.
    Only one part at a time takes memory.

    Args:
      function: `(state, part) -> (state, values)`, of floating numbers.
      state: before the first part.
      view, rows: of the whole batch, whose size is a multiple of `parts`.
    """
    if parts == 1:
        return function(state, Part(view, rows, 0))
    # The one entry that all examples of a batch share.
    shared = {"mix_weight": view.mix_weight}
    divided = _divide((view._replace(mix_weight=None), rows), parts)

    def add(carried: tuple[PyTree, PyTree], numbered: Any):
        (part_view, part_rows), number = numbered
        state, total = carried
        part = Part(part_view._replace(**shared), part_rows, number)
        state, values = function(state, part)
        return (state, jax.tree.map(jnp.add, total, values)), None

    first = jax.tree.map(lambda x: x[0], divided)
    part = Part(first[0]._replace(**shared), first[1], jnp.int32(0))
    shapes = jax.eval_shape(function, state, part)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    numbers = jnp.arange(parts, dtype=jnp.int32)
    (state, total), _ = jax.lax.scan(add, (state, zeros), (divided, numbers))
    return state, jax.tree.map(lambda x: x / parts, total)


def _divide(tree: PyTree, parts: int) -> PyTree:
    """Arrays `[batch, ...]` as `[parts, batch / parts, ...]`, on the same devices."""

    def divide(x: Any) -> Any:
        return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(divide, tree)
