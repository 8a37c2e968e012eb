"""The choice of the input pipeline: on device (resident) or from host (streamed)."""

from typing import Literal

import jax
from jax.sharding import Mesh

from kdjax.config import require
from kdjax.data.source import Source

Pipeline = Literal["device", "host"]

# Of the devices' memory: the models, their gradients and activations need the rest.
MEMORY_FRACTION = 0.3
# For a device that does not report its memory (the CPU's is the host's).
FALLBACK = 4 * 2**30


def decoded_bytes(source: Source) -> int:
    """Bytes of all images at the source's shape, as uint8."""
    height, width, channels = source.shape
    return len(source) * height * width * channels


def device_budget(mesh: Mesh) -> int:
    """Bytes that a resident set may take, over all devices of a mesh."""
    local = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    stats = local[0].memory_stats() if local else None
    limit = (stats or {}).get("bytes_limit")
    return FALLBACK if limit is None else int(MEMORY_FRACTION * limit * mesh.size)


def choose_pipeline(
    source: Source, budget_bytes: int, choice: str = "auto"
) -> Pipeline:
    """The input pipeline: "device" where the decoded images fit, else "host".

    budget_bytes: the memory for the decoded images, over all devices.

    choice: "device" or "host" forces one.

    >>> import numpy as np
    >>> from kdjax.data.datasets import from_arrays
    >>> source = from_arrays(np.zeros((6, 8, 8, 3), np.uint8), None)
    >>> decoded_bytes(source), [choose_pipeline(source, n) for n in (1024, 4096)]
    (1152, ['host', 'device'])
    """
    choices = ("auto", "device", "host")
    require(choice in choices, "data.pipeline", " or ".join(choices), choice)
    if choice == "auto":
        return "device" if decoded_bytes(source) <= budget_bytes else "host"
    return "device" if choice == "device" else "host"
