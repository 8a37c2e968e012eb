"""Relation losses on a batch that is divided over devices."""

import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, get_abstract_mesh

from kdjax.core import checks, collectives
from kdjax.core.types import Array

# An axis of `shard_map` or `pmap`; () states that the rows are the whole batch.
AxisName = str | tuple[()] | None
Kernel = TypeVar("Kernel", bound=Callable[..., Array])

_within = contextvars.ContextVar("within", default=False)


def over_global_batch(*rows: str) -> Callable[[Kernel], Kernel]:
    """Make a kernel compare the examples of the global batch, on any devices.

    - With `axis_name` inside `shard_map` or `pmap`, the rows of all devices are
      gathered, and each device has the values of its own rows.
    - Without it the kernel raises there: a part of the batch would give another loss.
    - Rows divided over a mesh of Explicit axes are replicated first, since JAX has no
      sharding rule for a product of rows with rows.

    rows: names of further arguments with one entry per example.
    """

    def decorate(kernel: Kernel) -> Kernel:
        pair = tuple(inspect.signature(kernel).parameters)[:2]

        @functools.wraps(kernel)
        def global_kernel(
            *arrays: Array, axis_name: AxisName = None, **options: Any
        ) -> Array:
            if _within.get():
                return kernel(*arrays, **options)
            batch: dict[str, Any] = dict(zip(pair, arrays, strict=False))
            names = (*pair, "where", *rows)
            batch |= {name: options.pop(name) for name in names if name in options}
            move, back = _unchanged, _unchanged
            if axis_name is None:
                _refuse_mapped()
                move, back = _replicated(batch.get(pair[0]))
            elif isinstance(axis_name, str):
                move = _gathered(axis_name, options.get("axis", -1))
                back = functools.partial(collectives.my_rows, axis_name=axis_name)
            token = _within.set(True)
            try:
                return back(kernel(**jax.tree.map(move, batch), **options))
            finally:
                # Kernels called within this one had the whole batch already.
                _within.reset(token)

        return cast(Kernel, global_kernel)

    return decorate


def _unchanged(x: Any) -> Any:
    return x


def _refuse_mapped() -> None:
    axes = get_abstract_mesh().manual_axes
    if axes:
        expected = f"the axis of the batch, one of {list(axes)} (a loss of the rows of "
        expected += "one device is another loss; () states that they are all rows)"
        checks.refuse("axis_name", expected, None)


def _gathered(axis_name: str, axis: int) -> Callable[[Array], Array]:
    """The rows of all devices, for a kernel whose features lie along `axis`."""

    def gather(x: Array) -> Array:
        at = 1 if x.ndim == 2 and axis % 2 == 0 else 0
        return jax.lax.all_gather(x, axis_name, axis=at, tiled=True)

    return gather


def _replicated(x: Any) -> tuple[Callable, Callable]:
    """To all rows on every device of an Explicit mesh, and values back to its rows."""
    if not hasattr(x, "dtype"):
        return _unchanged, _unchanged
    sharding = jax.typeof(x).sharding
    mesh = sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return _unchanged, _unchanged
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec(*sharding.spec[:1]))

    def replicate(x: Array) -> Array:
        return jax.sharding.reshard(x, everywhere)

    return replicate, lambda values: jax.sharding.reshard(values, divided)
