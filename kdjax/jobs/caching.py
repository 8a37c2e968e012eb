"""Computing a teacher's targets ahead of time: the target cache of a run."""

import dataclasses
import datetime
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
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
from kdjax.config import (
    Cache,
    Run,
    replace_cache,
    require,
    require_folder,
    trained_first,
)
from kdjax.core import hosts
from kdjax.core.liveness import watch_others
from kdjax.core.seeds import map_seeds
from kdjax.core.types import BoundModel, Model, Output
from kdjax.data import streamed
from kdjax.data.datasets import Splits
from kdjax.jobs.measuring import check_teacher
from kdjax.jobs.start import Job, check_run, load_data, open_job
from kdjax.setup.batches import scalars
from kdjax.train import compiled, sharding
from kdjax.train.progress import Bar, stage


def cache_targets(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Run the teacher over the student's views of a run, and store its targets.

    Stored blocks whose checksums are right are kept, and the others are computed. So
    the same call resumes after an interruption, and repairs a damaged store. Several
    processes share the blocks; each runs the teacher on its own devices.

    Args:
      run: the run that will read them, `run.cache` included.
      splits, student, teacher: as `distill` takes them.

    Returns:
      The store's folder, `run.cache.path`.

    Raises:
      ConfigError: a field that cannot be used.
      StoreError: the store is of another run, or cannot be written; blocks that were
        written stay.
    """
    check_run(run)
    require(run.teacher is not None, "teacher", "a teacher", run.teacher)
    assert run.teacher is not None
    path = run.cache.path
    require(bool(path), "teacher.cache.path", "a folder or URL", path)
    local = path.removeprefix("file://")
    if "://" not in local:
        require_folder(local, "teacher.cache.path")
    job = load_data(open_job(run, splits, student, teacher, console))
    writer, store = _prepare(job)
    # Over a URL no process can tell others that it is there.
    watch = "://" not in local
    with watch_others(local, run.compute.lost_after) if watch else nullcontext():
        _fill(writer, store, job.console)
    return pathlib.Path(path)


def _fill(writer: Writer, store: Store, console: Console) -> None:
    """Compute the blocks that are missing, each process its share."""
    missing = store.missing()
    hosts.wait_for_all("checked the store")
    console.print(
        f"{store.path}: {store.records} records, {decimal(store.nbytes)}; "
        f"{len(missing)} of {store.blocks} blocks to compute",
        highlight=False,
        soft_wrap=True,
    )
    local = missing[jax.process_index() :: jax.process_count()]
    _write(writer, store, local, store.blocks - len(missing), console)
    hosts.wait_for_all("cached all targets")


def _write(
    writer: Writer, store: Store, blocks: Sequence[int], valid: int, console: Console
) -> None:
    """Compute and write blocks. valid: the number of blocks stored before."""
    total = sum(writer.count_batches(store, block) for block in blocks)
    with Bar("cache", total, 0, console, unit="batch") as bar:
        meter = _Meter(writer, store, total, bar, console)
        for done, block in enumerate(blocks):
            try:
                store.write(block, writer.compute(store, block, meter.tick))
            except StoreError as error:
                raise StoreError(
                    f"{error}; {valid + done} of {store.blocks} blocks are there, the "
                    "same command resumes after them"
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
        # The first batch is late, as it compiles.
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


def _prepare(job: Job) -> tuple[Writer, Store]:
    """The functions that compute a run's targets, and the store that they go to."""
    run, source, student = job.run, job.data["train"], job.student
    teacher = _load(job)
    # Refuses epochs that make no step before anything is traced.
    count_records(run, source)
    live = _live(run, teacher)
    with stage(job.console, "checking that all parts fit together"):
        setup.check_fit(live, train=source, student=student, teacher=teacher)
    whole = teacher
    if jax.process_count() > 1:
        teacher = teacher._replace(variables=hosts.fetch_global(teacher.variables))
    mesh = _local_mesh(live)
    parts = setup.make_parts(
        live, train=source, student=student, teacher=teacher, mesh=mesh
    )
    constants = setup.place_constants(parts)
    teacher_fn = _make_teacher_fn(parts, run.cache)
    writer = Writer(
        run=run,
        teacher_fn=lambda batch: teacher_fn(batch, constants),
        batches=setup.make_batches(parts),
        examples=_make_examples(parts),
    )
    # Refuses classes and taps that are not there before the teacher runs.
    columns = writer.columns()
    with stage(job.console, "measuring the teacher"):
        check_teacher(whole, job)
    return writer, _open_on_all(lambda: create_cache(run, source, teacher, columns))


def _load(job: Job) -> BoundModel:
    """The teacher of a job with values: passed, published, or trained before."""
    run = job.run
    assert run.teacher is not None
    untrained = job.teacher is None and trained_first(run.teacher) is not None
    ok = not untrained or (setup.teacher_folder(run) / "config.json").is_file()
    expected = "run or weights, or a trained teacher in the run folder"
    require(ok, "teacher.kind", expected, run.teacher.kind)
    teacher = setup.load_teacher(run, job.data["train"], job.mesh, job.teacher)
    expected = "a teacher that does not change"
    require(teacher is not None, "teacher.kind", expected, run.teacher.kind)
    assert teacher is not None
    return teacher


def _live(run: Run, teacher: BoundModel) -> Run:
    """The run with a live teacher, over the views whose targets are stored."""
    fixed, crops = run.views.mode == "fixed", run.cache.crops
    # Views of mode `independent` give the teacher its own crops, to be averaged.
    mode = "independent" if crops else run.views.mode
    return dataclasses.replace(
        run,
        teacher=replace_cache(run.teacher, Cache()),
        views=dataclasses.replace(run.views, mode=mode),
        seeds=1 if fixed and teacher.axis is None else run.seeds,
        # Without a gradient to average, pmap would compute the same.
        compute=dataclasses.replace(run.compute, how="jit"),
    )


def _local_mesh(run: Run) -> Mesh:
    """The devices of this process. Processes share blocks, devices share batches."""
    local, compute = jax.local_devices(), run.compute
    if jax.process_count() > 1:
        fsdp = min(compute.fsdp, len(local))
        compute = dataclasses.replace(compute, data=0, fsdp=fsdp)
    return sharding.make_mesh(compute, run.batch, local)


def _open_on_all(create: Callable[[], Store]) -> Store:
    """A store that the first process creates and the others open."""
    store = create() if hosts.is_first() else None
    hosts.wait_for_all("made the store")
    return store or create()


def _make_teacher_fn(parts: setup.Parts, cache: Cache) -> Callable[..., Output]:
    """`(batch, constants) -> Output` of all seeds: the teacher over views of training.

    Only the stored taps are outputs. One more output makes another program of a
    network, whose logits are rounded otherwise than the live teacher's.
    """
    teacher = parts.teacher
    require(teacher is not None, "terms", "a term that needs the teacher", "none")
    assert teacher is not None

    def predict(batch: Any, constants: Any) -> Any:
        view = parts.view(batch["step"], batch, constants)
        output: Any = teacher.targets({}, view, batch, constants)
        return select_taps(output, cache.taps)

    unroll = parts.mesh.devices.flat[0].platform == "cpu"
    axes = (compiled.SEED_AXES, parts.constant_axes)
    return jax.jit(map_seeds(predict, axes, parts.run.seeds, unroll=unroll))


def _make_examples(parts: setup.Parts) -> Callable[[np.ndarray, int], Iterator[Any]]:
    """`(indices, count) -> batches` of the same examples in `count` epochs."""
    source, run = parts.train, parts.run
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)

    def examples(indices: np.ndarray, count: int) -> Iterator[Any]:
        rows = {"label": source.labels[indices], "id": source.ids[indices]}
        rows |= {"index": indices, **streamed.load_images(source, indices)}
        for epoch in range(count):
            rows["epoch"] = np.full(len(indices), epoch, np.int32)
            repeated = {k: np.stack([x] * len(seeds)) for k, x in rows.items()}
            first = {"seed": seeds, "step": np.int32(0), **scalars(parts, 0)}
            yield {**first, "rows": repeated}

    return examples
