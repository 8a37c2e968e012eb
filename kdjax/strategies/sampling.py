"""Random numbers of the examples of a batch, and relaxed samples of classes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax.core import collectives
from kdjax.core.types import Array, PyTree


def draw_rows(
    draw: Callable[[int], PyTree], count: int, axis_name: str | None
) -> PyTree:
    """Random numbers of the examples, the same under `jit` and `pmap`.

    Args:
      draw: `count -> arrays` with an axis of examples first, for the global batch.
      count: examples of this device.
      axis_name: the pmap axis of the batch, or None.
    """
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    whole = draw(count * devices)
    return jax.tree.map(lambda x: collectives.my_rows(x, axis_name), whole)


def draw_uniform(key: Array, count: int, axis_name: str | None) -> Array:
    """Uniform numbers in [0, 1), one an example: `[count]`."""
    draw = functools.partial(jax.random.uniform, key)
    return draw_rows(lambda n: draw((n,)), count, axis_name)


def gumbel_softmax(
    key: Array,
    logits: Array,
    temperature: float | Array,
    straight_through: bool = False,
    axis_name: str | None = None,
) -> Array:
    """Relaxed samples of a categorical distribution (arXiv 1611.01144).

    `softmax((logits + g) / temperature)` with Gumbel noise g, `[batch, classes]`.
    Towards temperature 0 they are one-hot, and their mean is `softmax(logits)`.

    straight_through: one-hot values with the gradient of the relaxed ones.
    """
    draw, classes = functools.partial(jax.random.gumbel, key), logits.shape[-1]
    noise = draw_rows(lambda n: draw((n, classes)), len(logits), axis_name)
    noisy = (logits + noise) / temperature
    relaxed = jax.nn.softmax(noisy)
    if not straight_through:
        return relaxed
    top = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), classes)
    return relaxed + jax.lax.stop_gradient(top - relaxed)
