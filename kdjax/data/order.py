"""Which examples make up which batch: a function of (seed, step) and nothing else."""

import functools
from collections.abc import Sequence

import numpy as np


@functools.lru_cache(maxsize=64)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    bits = np.random.Philox(key=[seed, epoch])
    return np.random.Generator(bits).permutation(n).astype(np.int32)


# Changes when the same seed begins to give another order.
VERSION = "philox-1"


def batch_at(
    step: int, *, n: int, batch: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of update `step`, shuffled anew each pass and without a remainder.

    Passes follow one another without a gap: a batch may hold the end of one and the
    beginning of the next, and every example is seen exactly once a pass.

    Returns `[batch]` int32 places in the split and `[batch]` int32 epochs.
    """
    if batch > n:
        raise ValueError(f"batch: expected at most the {n} examples, got {batch}")
    position = np.arange(step * batch, (step + 1) * batch)
    epochs, slots = position // n, position % n
    first, last = int(epochs[0]), int(epochs[-1])
    places = _permutation(n, seed, first)[slots]
    if last != first:
        places = np.where(epochs == first, places, _permutation(n, seed, last)[slots])
    return places, epochs.astype(np.int32)


def rows_at(
    step: int,
    *,
    n: int,
    batch: int,
    seeds: Sequence[int],
    rows: np.ndarray | slice = slice(None),
) -> dict[str, np.ndarray]:
    """`place` and `epoch` of some rows of update `step`, int32 `[seeds, rows]`."""
    each = [batch_at(step, n=n, batch=batch, seed=int(seed)) for seed in seeds]
    places, epochs = (np.stack(x)[:, rows] for x in zip(*each, strict=True))
    return {"place": places, "epoch": epochs}
