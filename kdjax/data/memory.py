"""A whole source decoded once, in threads; and what to do about images that fail."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from kdjax.config import require
from kdjax.data.images import ImageError, ShapeError
from kdjax.data.source import Source, load, select

# Images a thread takes at a time: one by one, small images wait for the queue.
CHUNK = 64

OnCorrupt = Literal["raise", "skip"]


def in_memory(
    source: Source, *, on_corrupt: OnCorrupt = "raise", workers: int = 4
) -> Source:
    """The same source with all its images decoded, brought to its shape.

    Args:
      source: of any kind; one that is in memory comes back as it is.
      on_corrupt: what to do about an image that cannot be decoded: "raise" names it,
        "skip" leaves it out; the ids of the others do not change. An image of another
        shape is an error either way.
      workers: threads that decode (Pillow lets them run side by side).

    Returns:
      The source with `images` `[n, *shape]` uint8 (and `sizes` where it resizes);
      `left_out` says what was.

    Raises:
      ImageError: naming the first image that cannot be used.
      ConfigError: none can be used.
    """
    if source.images is not None:
        return source
    images = np.empty((len(source), *source.shape), np.uint8)
    sizes = np.zeros((len(source), 2), np.int32)

    def keep(place: int) -> None:
        images[place], sizes[place] = load(source, place)

    bad = _for_each(keep, len(source), on_corrupt, workers)
    good = _without(len(source), bad)
    if bad:
        source, images, sizes = select(source, good), images[good], sizes[good]
    return dataclasses.replace(
        source,
        read=lambda place: images[place],
        images=images,
        sizes=sizes if source.resizes else None,
        left_out=tuple(bad.values()),
    )


def usable(
    source: Source, *, on_corrupt: OnCorrupt = "raise", workers: int = 4
) -> Source:
    """The examples of a source that can be decoded, for a feed that streams them.

    With "skip" every image is decoded once to find out, since the order of examples has
    to be known before the first batch. With "raise" nothing is read now: an image that
    fails ends the run when its turn comes. See `in_memory`.
    """
    if source.images is not None or on_corrupt == "raise":
        return source

    def probe(place: int) -> None:
        load(source, place)

    bad = _for_each(probe, len(source), on_corrupt, workers)
    good = _without(len(source), bad)
    kept = select(source, good) if bad else source
    return dataclasses.replace(kept, left_out=tuple(bad.values()))


def _for_each(
    work: Callable[[int], None], n: int, on_corrupt: OnCorrupt, workers: int
) -> dict[int, str]:
    """Do `work` for every place; the places that failed and why."""
    require(on_corrupt in ("raise", "skip"), "on_corrupt", "raise or skip", on_corrupt)

    def some(start: int) -> dict[int, str]:
        bad = {}
        for place in range(start, min(start + CHUNK, n)):
            try:
                work(place)
            except ImageError as error:
                if on_corrupt == "raise" or isinstance(error, ShapeError):
                    raise
                bad[place] = str(error)
        return bad

    bad: dict[int, str] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        try:
            for found in pool.map(some, range(0, n, CHUNK)):
                bad |= found
        except ImageError:
            # Nothing more is decoded once one has failed.
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _without(n: int, bad: dict[int, str]) -> np.ndarray:
    good = np.setdiff1d(np.arange(n), list(bad))
    want = "images that can be decoded"
    first = next(iter(bad.values()), "no images")
    require(len(good) > 0, "on_corrupt", want, f"none of {n}; the first: {first}")
    return good
