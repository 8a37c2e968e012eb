"""The order of examples: each batch is a function of (seed, step) and nothing else."""

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
    """The batch of step `step`, shuffled anew each epoch and without a remainder.

    Epochs follow one another without a gap: a batch may hold the end of one and the
    beginning of the next, and every epoch contains every example exactly once.

    Returns `[batch]` int32 indices in the split and `[batch]` int32 epochs.
    """
    if batch > n:
        raise ValueError(f"batch: expected at most the {n} examples, got {batch}")
    position = np.arange(step * batch, (step + 1) * batch)
    epochs, slots = position // n, position % n
    first, last = int(epochs[0]), int(epochs[-1])
    indices = _permutation(n, seed, first)[slots]
    if last != first:
        indices = np.where(epochs == first, indices, _permutation(n, seed, last)[slots])
    return indices, epochs.astype(np.int32)


def rows_at(
    step: int,
    *,
    n: int,
    batch: int,
    seeds: Sequence[int],
    rows: np.ndarray | slice = slice(None),
) -> dict[str, np.ndarray]:
    """`index` and `epoch` of some rows of step `step`, int32 `[seeds, rows]`."""
    each = [batch_at(step, n=n, batch=batch, seed=int(seed)) for seed in seeds]
    indices, epochs = (np.stack(x)[:, rows] for x in zip(*each, strict=True))
    return {"index": indices, "epoch": epochs}
