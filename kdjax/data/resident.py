"""The whole training set on the devices, as uint8: no input pipeline to wait for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.core.types import Array
from kdjax.data.sources import Source


def place(source: Source, mesh: Mesh | None = None) -> dict[str, Any]:
    """Put a source on the devices of a mesh, its examples divided among them.

    Returns arrays `image` uint8, `label` int32, `id` int32. Their length is rounded up
    to a multiple of the devices with rows that no index ever names.
    """
    arrays = {"image": source.images, "label": source.labels, "id": source.ids}
    if mesh is None:
        return {name: jnp.asarray(x) for name, x in arrays.items()}
    spare = -len(source) % mesh.size
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def put(x: np.ndarray) -> jax.Array:
        padded = np.concatenate([x, np.repeat(x[:1], spare, axis=0)])
        return jax.make_array_from_callback(padded.shape, sharding, padded.__getitem__)

    return {name: put(x) for name, x in arrays.items()}


def take(data: dict[str, Array], places: Array) -> tuple[Array, Array, Array]:
    """Images, labels and ids of `[batch]` places."""
    return data["image"][places], data["label"][places], data["id"][places]
