"""Comparison of the processes of a run: all must have the same inputs."""

import collections
import hashlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def find_odd(values: Mapping[str, str]) -> dict[int, list[str]]:
    """The processes that differ from most others, and the names of what differs.

    All processes must call it, with devices of one count and kind (`find_odd_devices`);
    it is a barrier too. Of two that differ, the second is the odd one.

    Args:
      values: texts by name, of any length. A name that another process lacks differs.
    """
    if jax.process_count() == 1:
        return {}
    names = sorted(values)
    own = "\n".join(names).encode()
    # Texts are of different lengths, arrays must not be.
    lengths = multihost_utils.process_allgather(np.int32(len(own)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(own)] = np.frombuffer(own, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    lists = [bytes(row[:n]).decode() for row, n in zip(rows, lengths, strict=True)]
    every = sorted({name for text in lists for name in text.split("\n")})
    digests = [_digest(values.get(name)) for name in every]
    gathered = multihost_utils.process_allgather(np.stack(digests))
    return odd_ones(every, gathered)


def odd_ones(names: Sequence[str], digests: np.ndarray) -> dict[int, list[str]]:
    """Processes that differ from most others, with the names of what differs.

    digests: `[processes, names, ...]`.
    """
    found: dict[int, list[str]] = {}
    for i, name in enumerate(names):
        keys = [row[i].tobytes() for row in digests]
        # Of equal counts the first one that came is taken.
        ((usual, _),) = collections.Counter(keys).most_common(1)
        for process, key in enumerate(keys):
            if key != usual:
                found.setdefault(process, []).append(name)
    return dict(sorted(found.items()))


def find_odd_devices() -> dict[int, str]:
    """The processes whose devices differ from those of most others, and what they are.

    JAX lists the devices of all processes on each, so that nothing is sent.
    """
    kinds: dict[int, list[str]] = {i: [] for i in range(jax.process_count())}
    for device in jax.devices():
        kinds[device.process_index].append(device.device_kind)
    texts = {i: _count(x) for i, x in kinds.items()}
    ((usual, _),) = collections.Counter(texts.values()).most_common(1)
    return {i: text for i, text in texts.items() if text != usual}


def _count(kinds: Sequence[str]) -> str:
    counts = collections.Counter(kinds)
    return " and ".join(f"{n} x {kind}" for kind, n in sorted(counts.items()))


def _digest(text: str | None) -> np.ndarray:
    """32 bytes; zeros where there is no text."""
    if text is None:
        return np.zeros(32, np.uint8)
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
