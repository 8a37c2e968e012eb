"""The whole training set on the devices, as uint8: no input pipeline to wait for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.config import ConfigError
from kdjax.core.types import Array
from kdjax.data.source import Source


def to_arrays(source: Source) -> dict[str, np.ndarray]:
    """The data of all examples, as arrays with one row an example.

    image: `[n, height, width, channels]` uint8. label, id: `[n]` int32. size: `[n, 2]`
    int32, the (height, width) before resizing, only where images were resized.

    Raises ConfigError where the images are not in memory yet (`memory.decode_all`).
    """
    if source.images is None:
        reason = "expected images in memory, see memory.decode_all"
        raise ConfigError("source", reason=reason)
    arrays = {"image": source.images, "label": source.labels, "id": source.ids}
    return arrays if source.sizes is None else {**arrays, "size": source.sizes}


def shard(source: Source, mesh: Mesh | None = None) -> dict[str, Any]:
    """Shard a source over the devices of a mesh, by example.

    Returns the arrays of `to_arrays`. Their length is rounded up to a multiple of the
    devices with rows that no index ever names.
    """
    arrays = to_arrays(source)
    if mesh is None:
        return {name: jnp.asarray(x) for name, x in arrays.items()}
    spare = -len(source) % mesh.size
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def put(x: np.ndarray) -> jax.Array:
        padded = np.concatenate([x, np.repeat(x[:1], spare, axis=0)])
        return jax.make_array_from_callback(padded.shape, sharding, padded.__getitem__)

    return {name: put(x) for name, x in arrays.items()}


def take(data: dict[str, Array], indices: Array) -> dict[str, Array]:
    """The rows at `[batch]` indices."""
    return {name: x[indices] for name, x in data.items()}
