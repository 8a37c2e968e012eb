"""The device mesh, and the shardings of arrays on it."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.config import Compute, require
from kdjax.core.types import PyTree

BATCH_AXES = ("data", "fsdp")

# Smaller arrays are copied: sharing them would cost more messages than it saves memory.
SHARED_FROM = 1024


def make_mesh(
    compute: Compute, batch: int, devices: Sequence[Any] | None = None
) -> Mesh:
    """The `('data', 'fsdp')` mesh of a config, of all devices by default.

    Raises ConfigError where the config names more devices than there are, or where the
    batch does not divide by the devices that share it, and by its parts.
    """
    devices = list(devices or jax.devices())
    available = len(devices)
    data = compute.data or max(1, available // compute.fsdp)
    count = data * compute.fsdp
    field = "compute.data x compute.fsdp"
    require(
        count <= available, field, f"at most the {available} devices there are", count
    )
    require(batch % count == 0, "batch", f"a multiple of {count} devices", batch)
    parts = compute.accumulate
    expected = f"a multiple of {count * parts}: {parts} parts (compute.accumulate)"
    expected += f" on {count} devices" if count > 1 else ""
    require(batch % (count * parts) == 0, "batch", expected, batch)
    # Auto, not Explicit: ordinary models are not written for explicit sharding.
    types = AxisType.Auto, AxisType.Auto
    devices = devices[:count]
    slices = len({getattr(x, "slice_index", 0) for x in devices})
    if slices == 1:
        return jax.make_mesh(
            (data, compute.fsdp), BATCH_AXES, axis_types=types, devices=devices
        )
    # Parameters are shared within a slice, so that gradients alone go between them.
    expected = f"a multiple of the {slices} slices"
    require(data % slices == 0, "compute.data", expected, data)
    shape = data // slices, compute.fsdp
    grid = mesh_utils.create_hybrid_device_mesh(shape, (slices, 1), devices)
    return Mesh(grid, BATCH_AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(
    mesh: Mesh, tree: PyTree, *, lead: int = 1, shard: Mapping[str, int] | None = None
) -> PyTree:
    """Shardings for parameters and optimizer state.

    Each array of at least `SHARED_FROM` elements a seed is divided over `fsdp` along
    its largest axis that divides; the others are copied. The first `lead` axes (the
    seeds) are never divided.

    shard: axes by pattern, as `Compute.shard`; -1 copies. An axis that does not divide
        is left to the rule.
    """
    parts = mesh.shape["fsdp"]

    def choose_sharding(path: tuple, x: Any) -> NamedSharding:
        sizes = x.shape[lead:]
        fits = [i for i, n in enumerate(sizes) if n % parts == 0]
        axis = axis_of(path, shard or {})
        if axis == -1 or parts == 1 or not fits:
            return replicated(mesh)
        if axis not in fits:
            if np.prod(sizes) < SHARED_FROM:
                return replicated(mesh)
            axis = max(fits, key=lambda i: sizes[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * (lead + axis), "fsdp"))

    return jax.tree_util.tree_map_with_path(choose_sharding, tree)


def axis_of(path: tuple, shard: Mapping[str, int]) -> int | None:
    """The axis of the first pattern that fits the end of a path; None without one."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, axis in shard.items():
        if fnmatch.fnmatchcase(f"/{name}", f"*/{pattern}"):
            return axis
    return None


def check_shard(
    params: PyTree, shard: Mapping[str, int], parts: int, lead: int = 1
) -> None:
    """Refuse a pattern that no parameter has, and an axis that does not divide.

    Args:
      params: parameters by network, or their shapes.
      shard: as `Compute.shard`.
      parts: the devices that share a parameter.
      lead: axes before those of a parameter.

    Raises:
      ConfigError: naming the pattern.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    for pattern, axis in shard.items():
        found = [(p, x) for p, x in leaves if axis_of(p, {pattern: axis}) is not None]
        field = f"compute.shard.{pattern}"
        shown = ", ".join(
            jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves[:3]
        )
        require(bool(found), field, f"a pattern of parameters such as {shown}", axis)
        for path, x in found:
            sizes = x.shape[lead:]
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            ok = axis == -1 or (axis < len(sizes) and sizes[axis] % parts == 0)
            expected = f"an axis of {name} {sizes} that {parts} devices divide, or -1"
            require(ok, field, expected, axis)


def create_sharded(
    make: Callable[..., PyTree],
    mesh: Mesh,
    *args: Any,
    shard: Mapping[str, int] | None = None,
) -> PyTree:
    """`make(*args)`, every array created on the devices of its sharding."""
    shardings = state_sharding(mesh, jax.eval_shape(make, *args), shard=shard)
    # Run once: on CPU, optimizing it takes 4 s and gains nothing (measured: 0.6 s).
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(make, out_shardings=shardings, compiler_options=options)(*args)


def put(mesh: Mesh, x: np.ndarray, axis: int | None) -> jax.Array:
    """A host array on the mesh, divided along `axis` over all devices, or copied.

    Every host passes the same whole array; each device takes its own part.
    """
    spec = (
        PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, BATCH_AXES)
    )
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)


def abstract_sharded(
    make: Callable[..., PyTree],
    mesh: Mesh,
    *args: Any,
    shard: Mapping[str, int] | None = None,
) -> PyTree:
    """The shapes of `make(*args)` with the shardings it would be created with."""
    shapes = jax.eval_shape(make, *args)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        state_sharding(mesh, shapes, shard=shard),
    )
