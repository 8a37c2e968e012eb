"""Computing a teacher's targets ahead of time, for `teacher.cache`."""

import dataclasses
import datetime
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.filesize import decimal

from kdjax import setup
from kdjax.cache.plan import count_records
from kdjax.cache.store import Store, StoreError
from kdjax.cache.targets import is_fixed, select_taps
from kdjax.cache.writer import Writer, create_cache
from kdjax.config import Cache, Run, replace_cache, require, trained_first
from kdjax.core import hosts
from kdjax.core.seeds import map_seeds
from kdjax.core.types import BoundModel, Model, Output
from kdjax.data import streamed
from kdjax.data.datasets import Splits
from kdjax.jobs.start import Job, start
from kdjax.jobs.teachers import look_at_teacher, teacher_folder, teacher_loader
from kdjax.setup.feeds import make_batches, numbers, place_given
from kdjax.setup.parts import Parts
from kdjax.train import compiled, sharding
from kdjax.train.progress import Bar


def cache_targets(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Run the teacher over the student's views of a run, and store its targets.

    Blocks that are stored and pass their checksums are kept, the others are computed:
    the same call continues after an interruption, and repairs a damaged store. Several
    processes share the blocks; each runs the teacher on its own devices.

    Args:
      run: the run that will read them, `run.cache` included.
      splits, student, teacher: as `distill` takes them.

    Returns:
      The store's folder, `run.cache.path`.

    Raises:
      ConfigError: a field that cannot be used. StoreError: the folder holds the targets
      of something else, or cannot be written; what was written stays.
    """
    require(run.teacher is not None, "teacher", "a teacher", run.teacher)
    assert run.teacher is not None
    path = run.cache.path
    require(bool(path), "teacher.cache.path", "a folder or URL", path)
    job = start(run, splits, student, teacher, console)
    writer, store = _prepare(run, job, teacher)
    missing = store.missing()
    hosts.wait_for_all(f"checked {path}")
    job.console.print(
        f"{store.path}: {store.records} records, {decimal(store.nbytes)}; "
        f"{len(missing)} of {store.blocks} blocks to compute",
        highlight=False,
        soft_wrap=True,
    )
    ours = missing[jax.process_index() :: jax.process_count()]
    _write(writer, store, ours, store.blocks - len(missing), job.console)
    hosts.wait_for_all(f"cached {path}")
    return pathlib.Path(path)


def _write(
    writer: Writer, store: Store, blocks: Sequence[int], valid: int, console: Console
) -> None:
    """Compute and write blocks. valid: the number of those that were stored before."""
    total = sum(writer.count_batches(store, block) for block in blocks)
    with Bar("cache", total, 0, console, unit="batch") as bar:
        meter = _Meter(writer, store, total, bar, console)
        for done, block in enumerate(blocks):
            try:
                store.write(block, writer.compute(store, block, meter.tick))
            except StoreError as error:
                raise StoreError(
                    f"{error}; {valid + done} of {store.blocks} blocks are there, the "
                    "same command goes on after them"
                ) from error
            if done == 0:
                meter.forecast()


class _Meter:
    """Progress: images a second, bytes so far and in all."""

    def __init__(
        self, writer: Writer, store: Store, batches: int, bar: Bar, console: Console
    ):
        self._batches, self._bar, self._console = batches, bar, console
        records, seeds = 1, store.manifest.get("seeds", 1)
        if is_fixed(store):
            # With crops, several batches are of the same records.
            records = writer.run.batch / max(1, writer.cache.crops)
        self._images = writer.run.batch * seeds
        self._bytes = store.nbytes / store.records * records
        self._done, self._begun, self._last = 0, 0.0, time.monotonic()

    def tick(self) -> None:
        """Show one more batch."""
        now = time.monotonic()
        rate, self._last = self._images / max(now - self._last, 1e-9), now
        self._done += 1
        # The first one is late: it compiles.
        self._begun = self._begun or now
        sizes = (decimal(round(self._bytes * n)) for n in (self._done, self._batches))
        self._bar.show(self._done, rate, " of ".join(sizes))

    def forecast(self) -> None:
        """Print the time that the remaining batches will take, at the pace so far."""
        left = self._batches - self._done
        if left == 0 or self._done == 1:
            return
        pace = (self._last - self._begun) / (self._done - 1)
        self._console.print(
            f"cache: {left:,} batches, {decimal(round(self._bytes * left))} are left, "
            f"about {datetime.timedelta(seconds=round(left * pace))} at "
            f"{self._images / max(pace, 1e-9):,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )


def _prepare(
    run: Run, job: Job, given: tuple[Model, Any] | None
) -> tuple[Writer, Store]:
    """The functions that compute a run's targets, and the store that they go to."""
    assert run.teacher is not None
    folder = teacher_folder(run, run.folder)
    mesh = sharding.make_mesh(run.compute, run.batch)
    source = job.data["train"]
    untrained = given is None and trained_first(run.teacher) is not None
    ok = not untrained or (folder / "config.json").is_file()
    expected = "run or weights, or a trained teacher in the run folder"
    require(ok, "teacher.kind", expected, run.teacher.kind)
    teacher = teacher_loader(run, given, run.folder, mesh, source)()
    expected = "a teacher that does not change"
    require(teacher is not None, "teacher.kind", expected, run.teacher.kind)
    assert teacher is not None
    # Refuses epochs that make no step before anything is traced.
    count_records(run, source)
    live = _live(run, teacher)
    setup.check_fit(live, train=source, student=job.student, teacher=teacher)
    look_at_teacher(run, teacher, mesh, job)
    if jax.process_count() > 1:
        teacher = teacher._replace(variables=hosts.fetch_global(teacher.variables))
    parts = setup.make_parts(
        live, train=source, student=job.student, teacher=teacher, mesh=_own_mesh(live)
    )
    given_on_devices = place_given(parts)
    teacher_fn = _make_teacher_fn(parts, run.cache)
    writer = Writer(
        run=run,
        teacher_fn=lambda batch: teacher_fn(batch, given_on_devices),
        batches=make_batches(parts),
        examples=_make_examples(parts),
    )
    columns = writer.columns()
    return writer, _shared(lambda: create_cache(run, source, teacher, columns))


def _live(run: Run, teacher: BoundModel) -> Run:
    """The run with a live teacher, over the views whose targets are stored."""
    assert run.teacher is not None
    fixed, crops = run.views.mode == "fixed", run.cache.crops
    # Crops of the teacher's own, to be averaged, are what `independent` gives it.
    mode = "independent" if crops else run.views.mode
    return dataclasses.replace(
        run,
        teacher=replace_cache(run.teacher, Cache()),
        views=dataclasses.replace(run.views, mode=mode),
        seeds=1 if fixed and teacher.axis is None else run.seeds,
        # No gradient, nothing to average: pmap would be a second way to the same.
        compute=dataclasses.replace(run.compute, how="jit"),
    )


def _own_mesh(run: Run) -> Mesh:
    """The devices of this process: processes share blocks, devices share batches."""
    local, compute = jax.local_devices(), run.compute
    if jax.process_count() > 1:
        fsdp = min(compute.fsdp, len(local))
        compute = dataclasses.replace(compute, data=0, fsdp=fsdp)
    return sharding.make_mesh(compute, run.batch, local)


def _shared(make: Callable[[], Store]) -> Store:
    """A store that the first process makes and the others open."""
    store = make() if hosts.is_first() else None
    hosts.wait_for_all("made the store")
    return store or make()


def _make_teacher_fn(parts: Parts, cache: Cache) -> Callable[..., Output]:
    """`(batch, given) -> Output` of all seeds: the teacher over the views of training.

    Only the taps that are stored come out. A further output makes another program of a
    network, which rounds its logits otherwise than the live teacher does.
    """
    teacher = parts.teacher
    require(teacher is not None, "terms", "a term that needs the teacher", "none")
    assert teacher is not None

    def one(batch: Any, given: Any) -> Any:
        view = parts.view(batch["step"], batch, given)
        output: Any = teacher.targets({}, view, batch, given)
        return select_taps(output, cache.taps)

    unroll = parts.mesh.devices.flat[0].platform == "cpu"
    axes = (compiled.SEED_AXES, parts.given_axes)
    return jax.jit(map_seeds(one, axes, parts.run.seeds, unroll=unroll))


def _make_examples(parts: Parts) -> Callable[[np.ndarray, int], Iterator[Any]]:
    """`(indices, count) -> batches` of the same examples in `count` epochs."""
    source, run = parts.train, parts.run
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)

    def examples(indices: np.ndarray, count: int) -> Iterator[Any]:
        rows = {"label": source.labels[indices], "id": source.ids[indices]}
        rows |= {"index": indices, **streamed.load_images(source, indices)}
        for epoch in range(count):
            rows["epoch"] = np.full(len(indices), epoch, np.int32)
            each = {k: np.stack([x] * len(seeds)) for k, x in rows.items()}
            yield {
                "seed": seeds,
                "step": np.int32(0),
                "rows": each,
                **numbers(parts, 0),
            }

    return examples
