"""Collective operations on the global batch, for one device of a mapped function.

Under `jax.jit` over a mesh an array already is the global batch: pass
`axis_name=None` and every helper is the plain operation. Under `jax.pmap` or
`jax.shard_map` a function has its own rows only, and these helpers reach the others.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.core.types import Array, PyTree


def gather(x: Array, axis_name: str | None) -> Array:
    """The rows of all devices, in order of device: `[n, ...]` to `[devices * n, ...]`.

    The gradient comes back to the rows it belongs to, summed over the devices that
    used them. So if each device takes the loss of the whole batch, or the mean of
    its own rows of it (`my_rows`), the mean of the parameter gradients over the
    devices is the gradient of the global loss.

    Under `jax.shard_map` with its default `check_vma=True` this needs parameters that
    vary over the devices: take the gradient in `jax.lax.pcast(params, axis_name,
    to="varying")`. For parameters that do not vary JAX adds the gradients up by itself,
    and their mean is `devices` times too large.
    """
    if axis_name is None:
        return x
    return lax.all_gather(x, axis_name, tiled=True)


def total(x: Array, axis_name: str | None) -> Array:
    """The sum over the devices of a mapped axis; `x` itself without one."""
    return x if axis_name is None else lax.psum(x, axis_name)


def largest(x: Array, axis_name: str | None) -> Array:
    """The largest over the devices, without a gradient; `x` itself without an axis."""
    return x if axis_name is None else lax.pmax(lax.stop_gradient(x), axis_name)


def any_true(x: Array, axis: int, axis_name: str | None) -> Array:
    """`jnp.any` along an axis that a mapped axis divides over devices, if any does."""
    found = jnp.any(x, axis)
    if axis_name is None:
        return found
    return lax.pmax(found.astype(jnp.int32), axis_name) > 0


def my_rows(x: Array, axis_name: str | None) -> Array:
    """This device's rows of an array about the global batch; undoes `gather`."""
    if axis_name is None:
        return x
    rows = x.shape[0] // lax.axis_size(axis_name)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * rows, rows)


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
    """The mean of every leaf over the devices."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda leaf: lax.pmean(leaf, axis_name), tree)


def roll_one(x: Array, axis_name: str | None) -> Array:
    """The global batch rolled by one: row i of the result is row i - 1 of `x`, row 0
    its last row.

    Equal to `jnp.roll(x, 1, axis=0)` of the whole batch on any number of devices;
    only the last row of each device travels.
    """
    if axis_name is None:
        return jnp.roll(x, 1, axis=0)
    devices = lax.axis_size(axis_name)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    first = lax.ppermute(x[-1:], axis_name, ring)
    return jnp.concatenate([first, x[:-1]])


def on_auto_axes(
    function: Callable[..., Array], like: Array, leading: int
) -> Callable[..., Array]:
    """The function, with mesh axes of kind Explicit taken for Auto inside of it.

    For operations without a sharding rule in JAX: the compiler divides them instead.

    like: its result is divided over devices as the first `leading` axes of this array.
    """
    kind: Any = jax.typeof(like)
    mesh = kind.sharding.mesh
    axes = mesh.explicit_axes
    if not axes:
        return function
    divided = NamedSharding(mesh, PartitionSpec(*kind.sharding.spec[:leading]))
    divide: Any = jax.sharding.auto_axes
    return divide(function, axes=axes, out_sharding=divided)
