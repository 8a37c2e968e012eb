"""Which of the two feeds a source gets."""

from typing import Literal

import jax
from jax.sharding import Mesh

from kdjax.config import require
from kdjax.data.source import Source

Feed = Literal["resident", "streamed"]

# Of the devices' memory: the models, their gradients and activations need the rest.
SHARE = 0.3
# Where a device does not say how much memory it has (the CPU's is the host's).
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
    return FALLBACK if limit is None else int(SHARE * limit * mesh.size)


def choose_feed(source: Source, budget_bytes: int, feed: str = "auto") -> Feed:
    """resident where the decoded images fit into `budget_bytes`, else streamed.

    feed: "resident" or "streamed" forces one.

    >>> import numpy as np
    >>> from kdjax.data.sources import from_arrays
    >>> source = from_arrays(np.zeros((6, 8, 8, 3), np.uint8), None)
    >>> decoded_bytes(source), choose_feed(source, 1024), choose_feed(source, 4096)
    (1152, 'streamed', 'resident')
    """
    known = ("auto", "resident", "streamed")
    require(feed in known, "data.feed", " or ".join(known), feed)
    if feed == "auto":
        return "resident" if decoded_bytes(source) <= budget_bytes else "streamed"
    return "resident" if feed == "resident" else "streamed"
