"""Computing the records of a target cache, block by block."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.cache.manifest import make_manifest
from kdjax.cache.plan import count_records, format_steps
from kdjax.cache.store import Column, Store, create_store, open_store, read_manifest
from kdjax.cache.targets import is_fixed, keep, top_k_options
from kdjax.config import Cache, Run, beneath, require
from kdjax.core.types import Array, BoundModel, Output
from kdjax.data.source import Source

# Limits of a block, in bytes and steps. A block is written, checked and recomputed as a
# whole: an interruption loses one.
_BLOCK_BYTES, _BLOCK_STEPS = 4 * 2**20, 128


class Writer(NamedTuple):
    """The functions that compute the records of one run's target cache.

    run: the run that will read them.
    teacher_fn: `batch -> Output` of `[seeds, batch, ...]`, over the views of training.
    batches: `step -> batches` of the run from a step on.
    examples: `(indices, count) -> batches`: the same examples in `count` epochs.
    """

    run: Run
    teacher_fn: Callable[[Any], Output]
    batches: Callable[[int], Iterator[Any]]
    examples: Callable[[np.ndarray, int], Iterator[Any]]

    @property
    def cache(self) -> Cache:
        """The `teacher.cache` of the run."""
        return self.run.cache

    def columns(self) -> dict[str, Column]:
        """The columns of the store, from a trace of the teacher on the first batch.

        Raises ConfigError naming `teacher.cache.top_k` or `teacher.cache.taps`.
        """
        names = {name: name for name in ("top_k", "taps")}
        with beneath("teacher.cache", names):
            shapes = jax.eval_shape(
                lambda batch: self._keep(self.teacher_fn(batch)), next(self.batches(0))
            )
        # A record is of all seeds of an example, or of all seeds and a batch.
        fixed = self.run.views.mode == "fixed"
        return {
            k: Column((x.shape[0], *x.shape[2 if fixed else 1 :]), x.dtype.name)
            for k, x in shapes.items()
        }

    def count_batches(self, store: Store, block: int) -> int:
        """Batches that the teacher runs on for a block."""
        span = store.span(block)
        records = span.stop - span.start
        if is_fixed(store):
            return max(1, self.cache.crops) * -(-records // self.run.batch)
        return records

    def compute(
        self, store: Store, block: int, on_batch: Callable[[], None]
    ) -> dict[str, np.ndarray]:
        """The records of one block, `{name: [records, ...]}`.

        on_batch: called after each batch.
        """
        span, size = store.span(block), self.run.batch
        if is_fixed(store):
            starts = range(span.start, span.stop, size)
            spans = [slice(x, min(x + size, span.stop)) for x in starts]
            parts = [self._compute_examples(each, on_batch) for each in spans]
            return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        batches = self.batches(span.start)
        records = []
        for _ in range(span.start, span.stop):
            output = self.teacher_fn(next(batches))
            records.append(jax.device_get(self._keep(output)))
            on_batch()
        return {k: np.stack([record[k] for record in records]) for k in records[0]}

    def _compute_examples(
        self, span: slice, on_batch: Callable[[], None]
    ) -> dict[str, np.ndarray]:
        """The records of at most a batch, `{name: [examples, seeds, ...]}`."""
        # A short batch repeats its last example.
        indices = np.minimum(
            np.arange(span.start, span.start + self.run.batch), span.stop - 1
        )
        crops = self.cache.crops

        def outputs() -> Iterator[Output]:
            for batch in self.examples(indices, max(1, crops)):
                output = jax.block_until_ready(self.teacher_fn(batch))
                on_batch()
                yield output

        output = _mean(outputs(), crops) if crops else next(outputs())
        kept = jax.device_get(self._keep(output))
        count = span.stop - span.start
        return {k: np.moveaxis(x, 0, 1)[:count] for k, x in kept.items()}

    def _keep(self, output: Output) -> dict[str, Array]:
        return keep(output, taps=self.cache.taps, **top_k_options(self.run))


def _mean(outputs: Iterator[Output], count: int) -> Output:
    """The mean of the probabilities of several outputs, as logits."""
    total = sum(jax.nn.softmax(output.logits) for output in outputs)
    return Output(jnp.log(total / count), {})


def create_cache(
    run: Run, train: Source, teacher: BoundModel, columns: dict[str, Column]
) -> Store:
    """The store that a run names, made where there is none.

    Raises:
      ConfigError: it holds another number of epochs.
      StoreError: it is of something else, or nothing can be written there.
    """
    path, records = run.cache.path, count_records(run, train)
    manifest = make_manifest(run, train, teacher)
    if read_manifest(path) is not None:
        stored = open_store(path, manifest, repair=True).records
        expected = f"the {format_steps(run, train, stored)} that {path} was made for"
        got = format_steps(run, train, records)
        require(stored == records, "teacher.cache.epochs", expected, got)
    block = _block_size(run, columns, records)
    return create_store(path, manifest, columns, records=records, block=block)


def _block_size(run: Run, columns: dict[str, Column], records: int) -> int:
    """Records of a block: a batch of examples, or steps within the limits."""
    if run.views.mode == "fixed":
        return run.batch
    size = sum(column.nbytes for column in columns.values())
    return min(records, _BLOCK_STEPS, max(1, _BLOCK_BYTES // size))
