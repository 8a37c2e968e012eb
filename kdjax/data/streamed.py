"""Batches decoded as they are needed, the same ones in the same order as resident.

The batch of a step is a function of its number: examples by `order.batch_at`, crops
by their keys. So workers may make batches in any order, every host makes its own rows,
and to go on after an interruption is to start at another number.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.config import require
from kdjax.data import images as pictures
from kdjax.data import order
from kdjax.data.source import Source, load

Batch = dict[str, np.ndarray]


class Boxes(NamedTuple):
    """Crops for the rows of one side: box `[rows, 4]` in shares, flip `[rows]`."""

    box: np.ndarray
    flip: np.ndarray


class HostCrop(NamedTuple):
    """Options for crops on the host, at the full resolution of each image.

    draw: `(seed, epochs, examples, sizes) -> (student's Boxes, teacher's Boxes)`, with
        `sizes` `[rows, 2]` (height, width); `kdjax.augment.views.host_draw` makes one.
    student_size, teacher_size: sides of the square images of each, in pixels.
    method, antialias: how crops are resized.
    """

    draw: Callable[..., tuple[Any, Any]]
    student_size: int
    teacher_size: int
    method: str = "linear"
    antialias: bool = False


def make_assembler(
    source: Source,
    *,
    batch: int,
    seeds: Sequence[int],
    rows: np.ndarray | slice = slice(None),
    crop: HostCrop | None = None,
    workers: int = 4,
) -> Callable[[int], Batch]:
    """A function `step -> arrays of that step`, for the rows of this process.

    Args:
      source: examples; of any size each where the host crops.
      batch: images a step and seed, over all processes.
      seeds: of the run; each has an order of its own.
      rows: which rows of the batch this process needs (`local_rows`).
      crop: cut the views out on the host; None leaves that to the device.
      workers: threads that decode.

    Returns:
      A function to arrays `[seeds, rows, ...]`: `index`, `epoch`, `label`, `id` int32
      and `image` uint8, with `size` (height, width) where images are resized. Where the
      host crops, `student` and `teacher` uint8 in place of `image` (`teacher` is left
      out where it is the same), which still have to be normalized and mixed.
    """

    def one_seed(seed: int, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        arrays = {"label": source.labels[indices], "id": source.ids[indices]}
        if crop is None:
            return {**arrays, **load_images(source, indices, workers)}
        return {**arrays, **_cropped(source, indices, epochs, seed, crop, workers)}

    def assemble(step: int) -> Batch:
        options = {"n": len(source), "batch": batch, "seeds": seeds, "rows": rows}
        named = order.rows_at(int(step), **options)
        each = [
            one_seed(int(seed), *of_seed)
            for seed, *of_seed in zip(
                seeds, named["index"], named["epoch"], strict=True
            )
        ]
        return named | {k: np.stack([one[k] for one in each]) for k in each[0]}

    return assemble


def load_images(source: Source, indices: np.ndarray, workers: int = 4) -> Batch:
    """`image` uint8 `[n, *shape]` at some indices, decoded if need be, and `size`
    `[n, 2]` where images are resized."""
    if source.images is not None:
        arrays = {"image": source.images[indices]}
        return (
            arrays
            if source.sizes is None
            else {**arrays, "size": source.sizes[indices]}
        )
    loaded = _map(workers, lambda index: load(source, int(index)), indices)
    arrays = {"image": np.stack([image for image, _ in loaded])}
    if source.resizes:
        arrays["size"] = np.array([size for _, size in loaded], np.int32)
    return arrays


def _cropped(
    source: Source,
    indices: np.ndarray,
    epochs: np.ndarray,
    seed: int,
    crop: HostCrop,
    workers: int,
) -> Batch:
    images = _map(workers, lambda index: source.read(int(index)), indices)
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    if source.sizes is not None:
        sizes = source.sizes[indices]
    student, teacher = crop.draw(seed, epochs, source.ids[indices], sizes)

    def cut_all(boxes: Boxes, side: int) -> np.ndarray:
        def one(row: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
            how = crop.method, crop.antialias
            image, box, flip = row
            return pictures.crop_and_resize(image, box, bool(flip), side, side, *how)

        rows = list(zip(images, boxes.box, boxes.flip, strict=True))
        return np.stack(_map(workers, one, rows))

    arrays = {"student": cut_all(student, crop.student_size)}
    if teacher is not student or crop.teacher_size != crop.student_size:
        arrays["teacher"] = cut_all(teacher, crop.teacher_size)
    return arrays


@functools.lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="kdjax-decode")


def _map(workers: int, work: Callable[[Any], Any], items: Any) -> list[Any]:
    return list(_pool(workers).map(work, items) if workers else map(work, items))


def stream(
    assemble: Callable[[int], Batch],
    start: int,
    stop: int,
    *,
    ahead: int = 2,
    processes: int = 0,
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`, each made in advance.

    Args:
      assemble: from `make_assembler`.
      ahead: batches made in advance, in as many threads; 0 makes each on demand.
      processes: worker processes in place of this one's threads, for images whose
        decoding holds Python's lock. They use only CPU devices.
    """
    require(ahead >= 0, "ahead", ">= 0 batches", ahead)
    # Only runs that stream import it.
    import grain

    options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    make = functools.partial(_without_accelerator, assemble) if processes else assemble
    batches = grain.MapDataset.range(start, stop).map(make)
    batches = batches.to_iter_dataset(options)
    if processes:
        from absl import flags

        # Grain reads absl's flags, which only absl's own programs parse.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=processes)
        batches = batches.mp_prefetch(workers)
    return iter(batches)


def _without_accelerator(assemble: Callable[[int], Batch], step: int) -> Batch:
    """In a worker: leave the accelerators, and their memory, to the main process."""
    jax.config.update("jax_platforms", "cpu")
    return assemble(step)


def local_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows of a global batch that the devices of this process hold, ascending."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    where = sharding.addressable_devices_indices_map((batch,))
    rows = [np.arange(batch)[index] for index in where.values() if index is not None]
    return np.unique(np.concatenate(rows))


def shard(batch: Any, mesh: Mesh, rows: np.ndarray, size: int) -> Any:
    """This process's rows as its part of the global batch `[seeds, size, ...]`.

    batch: a tree of arrays `[seeds, rows of this process, ...]`.
    rows: their indices along the second axis of the global batch (`local_rows`).
    size: images in the global batch.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))

    def shard_leaf(x: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            columns = np.arange(size)[index[1]]
            return x[:, np.searchsorted(rows, columns)]

        shape = (x.shape[0], size, *x.shape[2:])
        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(shard_leaf, batch)


def prefetch(
    batches: Iterator[Batch], put: Callable[[Batch], Any], ahead: int = 2
) -> Iterator[Any]:
    """`put(batch)` of every batch, started `ahead` batches before its use.

    Copies to a device run in the background, so the next batch travels while the
    device works on this one.
    """
    waiting = collections.deque()
    for batch in batches:
        waiting.append(put(batch))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
