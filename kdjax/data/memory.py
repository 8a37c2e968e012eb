"""A whole source decoded once, in threads, with images that fail named or skipped."""

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


def decode_all(
    source: Source, *, on_error: OnCorrupt = "raise", workers: int = 4
) -> Source:
    """The same source with all its images decoded, brought to its shape.

    Args:
      source: of any kind; one that is in memory comes back as it is.
      on_error: what to do about an image that cannot be decoded: "raise" names it,
        "skip" leaves it out; the ids of the others do not change. An image of another
        shape is an error either way.
      workers: threads that decode (Pillow lets them run side by side).

    Returns:
      The source with `images` `[n, *shape]` uint8 (and `sizes` where it resizes);
      `skipped` names the others.

    Raises:
      ImageError: naming the first image that cannot be used.
      ConfigError: none can be used.
    """
    if source.images is not None:
        return source
    images = np.empty((len(source), *source.shape), np.uint8)
    sizes = np.zeros((len(source), 2), np.int32)

    def decode_one(index: int) -> None:
        images[index], sizes[index] = load(source, index)

    bad = _for_each(decode_one, len(source), on_error, workers)
    good = _without(len(source), bad)
    if bad:
        source, images, sizes = select(source, good), images[good], sizes[good]
    return dataclasses.replace(
        source,
        read=lambda index: images[index],
        images=images,
        sizes=sizes if source.resizes else None,
        skipped=tuple(bad.values()),
    )


def blank(source: Source) -> Source:
    """The same source with images of zeros, which take no memory, for shapes alone."""
    shape, n = source.shape, len(source)
    return dataclasses.replace(
        source,
        read=lambda index: np.zeros(shape, np.uint8),
        images=np.broadcast_to(np.uint8(0), (n, *shape)),
        sizes=np.broadcast_to(np.int32(1), (n, 2)) if source.resizes else None,
    )


def select_decodable(
    source: Source, *, on_error: OnCorrupt = "raise", workers: int = 4
) -> Source:
    """The decodable examples of a source, for the streamed input pipeline.

    With "skip" every image is decoded once in advance, since the order of examples is
    fixed before the first batch. With "raise" nothing is read now: an image that fails
    ends the run when its turn comes. See `decode_all`.
    """
    if source.images is not None or on_error == "raise":
        return source

    def probe(index: int) -> None:
        load(source, index)

    bad = _for_each(probe, len(source), on_error, workers)
    good = _without(len(source), bad)
    selected = select(source, good) if bad else source
    return dataclasses.replace(selected, skipped=tuple(bad.values()))


def _for_each(
    work: Callable[[int], None], n: int, on_error: OnCorrupt, workers: int
) -> dict[int, str]:
    """Do `work` for every index; the indices that failed, with the reasons."""
    require(on_error in ("raise", "skip"), "on_error", "raise or skip", on_error)

    def run_chunk(start: int) -> dict[int, str]:
        bad = {}
        for index in range(start, min(start + CHUNK, n)):
            try:
                work(index)
            except ImageError as error:
                if on_error == "raise" or isinstance(error, ShapeError):
                    raise
                bad[index] = str(error)
        return bad

    bad: dict[int, str] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        try:
            for failures in pool.map(run_chunk, range(0, n, CHUNK)):
                bad |= failures
        except ImageError:
            # Nothing more is decoded once one has failed.
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _without(n: int, bad: dict[int, str]) -> np.ndarray:
    good = np.setdiff1d(np.arange(n), list(bad))
    expected = "images that can be decoded"
    first = next(iter(bad.values()), "no images")
    require(len(good) > 0, "on_error", expected, f"none of {n}; the first: {first}")
    return good
