"""The shapes of everything that a step takes, with shardings, and nothing else."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.core.types import PyTree
from kdjax.data import resident
from kdjax.setup.batches import blank_batch, constant_shardings
from kdjax.setup.parts import Parts
from kdjax.train import sharding


def step_shapes(parts: Parts, steps: int) -> tuple[PyTree, dict[str, Any], Any]:
    """State, batches and constants of a call of `steps` steps, as `Compiled.lower` has.

    They have the shapes, types and shardings of those of a training, so that the same
    program comes of them. The devices of the mesh need not be there.

    parts: with shapes or arrays as variables, and any images.
    """
    return parts.state_shapes(), _batches(parts, steps), _constants(parts)


def _batches(parts: Parts, steps: int) -> dict[str, Any]:
    mesh, seeds = parts.mesh, parts.run.seeds
    batch = jax.eval_shape(lambda: blank_batch(parts)[0])
    divided = PartitionSpec(None, None, sharding.BATCH_AXES)

    def shape(path: tuple, x: Any) -> jax.ShapeDtypeStruct:
        name = path[0].key
        each = name in ("rows", "seed")
        spec = divided if name == "rows" else PartitionSpec()
        sizes = (steps, seeds, *x.shape) if each else (steps, *x.shape)
        # One device gets arrays of the host, which have none.
        where = NamedSharding(mesh, spec) if mesh.size > 1 else None
        return jax.ShapeDtypeStruct(sizes, x.dtype, sharding=where)

    return jax.tree_util.tree_map_with_path(shape, batch)


def _constants(parts: Parts) -> dict[str, Any]:
    """As `place_constants` places them."""
    mesh, constants = parts.mesh, dict(parts.constants)
    constants["data"] = {}
    if parts.pipeline == "device":
        spare = -len(parts.train) % mesh.size
        by_example = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        constants["data"] = {
            name: jax.ShapeDtypeStruct(
                (len(x) + spare, *x.shape[1:]), x.dtype, sharding=by_example
            )
            for name, x in resident.to_arrays(parts.train).items()
        }
    for name, where in constant_shardings(parts).items():
        constants[name] = jax.tree.map(_with_sharding, constants[name], where)
    return constants


def _with_sharding(x: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
