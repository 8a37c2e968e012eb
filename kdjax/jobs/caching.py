"""Computing a teacher's targets ahead of time, for `teacher.cache`."""

import dataclasses
import datetime
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.filesize import decimal

from kdjax import setup
from kdjax.config import Cache, ConfigError, Run, require
from kdjax.core import hosts
from kdjax.core.seeds import map_seeds
from kdjax.core.types import BoundModel, Model, Output
from kdjax.data import streamed
from kdjax.data.sources import Splits
from kdjax.data.store import Rows, Store, StoreError
from kdjax.jobs.start import Job, start
from kdjax.jobs.teachers import look_at_teacher, teacher_folder, teacher_loader
from kdjax.setup import cache
from kdjax.setup.feeds import make_batches, numbers, place_given
from kdjax.setup.parts import Parts
from kdjax.teachers.cached import keep, with_taps
from kdjax.train import compiled, sharding
from kdjax.train.progress import Bar

# A block is written, checked and repeated as a whole: so many bytes and updates at
# most. An interruption loses one.
_BLOCK, _BLOCK_UPDATES = 4 * 2**20, 128


class _Task(NamedTuple):
    """Whom to ask about what.

    run: as it is given. parts: of the same run with a live teacher.
    answer: `(batch, given) -> Output` of `[seeds, batch, ...]`.
    """

    run: Run
    parts: Parts
    answer: Callable[..., Output]
    given: dict[str, Any]

    @property
    def cache(self) -> Cache:
        assert self.run.teacher is not None
        return self.run.teacher.cache


def cache_targets(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Run the teacher over the views that a run will show its student; store targets.

    What is stored already and passes its checksums is kept, the rest is computed: the
    same call continues after an interruption, and mends a damaged store. Several
    processes share the blocks among them, each asking the teacher on its own devices.

    Args:
      run: the run that will read them, `run.teacher.cache` included.
      splits, student, teacher: as `distill` takes them.

    Returns:
      The store's folder, `run.teacher.cache.path`.

    Raises:
      ConfigError: a field that cannot be used. StoreError: the folder holds the targets
      of something else, or cannot be written; what was written stays.
    """
    require(run.teacher is not None, "teacher", "a teacher to ask", run.teacher)
    assert run.teacher is not None
    asked = run.teacher.cache
    require(bool(asked.path), "teacher.cache.path", "a folder or URL", asked.path)
    job = start(run, splits, student, teacher, console)
    task, store = _prepare(run, job, teacher)
    missing = store.missing()
    hosts.wait_for_all(f"looked at {asked.path}")
    ours = missing[jax.process_index() :: jax.process_count()]
    counts = {block: _calls(task, store, block) for block in ours}
    job.console.print(
        f"{store.path}: {store.rows} rows, {decimal(store.nbytes)}; {len(missing)} of "
        f"{store.blocks} blocks to compute",
        highlight=False,
        soft_wrap=True,
    )
    with Bar("cache", sum(counts.values()), 0, job.console, unit="batch") as bar:
        meter = _Meter(task, store, sum(counts.values()), bar, job.console)
        for done, block in enumerate(ours):
            try:
                store.write(block, _rows_of(task, store, block, meter.tick))
            except StoreError as error:
                there = store.blocks - len(missing) + done
                raise StoreError(
                    f"{error}; {there} of {store.blocks} blocks are there, the same "
                    "command goes on after them"
                ) from error
            if done == 0:
                meter.forecast()
    hosts.wait_for_all(f"cached {asked.path}")
    return pathlib.Path(asked.path)


class _Meter:
    """How far the asking is: images a second, and bytes so far and in all."""

    def __init__(
        self, task: _Task, store: Store, batches: int, bar: Bar, console: Console
    ):
        self._batches, self._bar, self._console = batches, bar, console
        self._images = task.parts.run.batch * task.parts.run.seeds
        rows = 1 if store.manifest["kind"] == "replayed" else task.run.batch
        # With crops, several batches are about the same rows.
        each = rows / max(1, task.cache.crops)
        self._bytes = store.nbytes / store.rows * each
        self._done, self._begun, self._last = 0, 0.0, time.monotonic()

    def tick(self) -> None:
        """One more batch is answered."""
        now = time.monotonic()
        rate, self._last = self._images / max(now - self._last, 1e-9), now
        self._done += 1
        # The first one is late: it compiles.
        self._begun = self._begun or now
        sizes = (decimal(round(self._bytes * n)) for n in (self._done, self._batches))
        self._bar.show(self._done, rate, " of ".join(sizes))

    def forecast(self) -> None:
        """Say how long the rest will take, by what is done."""
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
) -> tuple[_Task, Store]:
    assert run.teacher is not None
    folder = teacher_folder(run, run.folder)
    mesh = sharding.make_mesh(run.compute, run.batch)
    source = job.data["train"]
    trained_first = given is None and run.teacher.trained_first
    there = not trained_first or (folder / "config.json").is_file()
    want = "the run folder of a trained teacher (`kdjax train` makes one), or published"
    require(there, "teacher.run", f"{want} weights in teacher.model.weights", "")
    teacher = teacher_loader(run, given, folder, mesh, source)()
    require(teacher is not None, "teacher.kind", "model", run.teacher.kind)
    assert teacher is not None
    fixed, rows = run.views.mode == "fixed", cache.plan_rows(run, source)
    alone = _alone(run, teacher)
    setup.check_fit(alone, train=source, student=job.student, teacher=teacher)
    look_at_teacher(run, teacher, mesh, job)
    if jax.process_count() > 1:
        teacher = teacher._replace(variables=hosts.whole(teacher.variables))
    parts = setup.make_parts(
        alone,
        train=source,
        student=job.student,
        teacher=teacher,
        mesh=_own_mesh(alone),
    )
    task = _Task(run, parts, _answer(parts, run.teacher.cache), place_given(parts))
    batch = next(make_batches(parts)(0))
    try:
        shapes = jax.eval_shape(
            lambda x: _kept(task, task.answer(x, task.given)), batch
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"teacher.cache.{error}") from error
    lead = (alone.seeds,) if fixed else (alone.seeds, run.batch)
    arrays = {k: Rows((*lead, *x.shape[2:]), x.dtype.name) for k, x in shapes.items()}
    size = sum(x.nbytes for x in arrays.values())
    limit = rows, _BLOCK_UPDATES, max(1, _BLOCK // size)
    block = run.batch if fixed else min(limit)
    return task, _shared(lambda: cache.make_cache(run, source, teacher, arrays, block))


def _alone(run: Run, teacher: BoundModel) -> Run:
    """The run with a live teacher, as its views are asked about."""
    assert run.teacher is not None
    fixed, crops = run.views.mode == "fixed", run.teacher.cache.crops
    # Crops of the teacher's own, to be averaged, are what `independent` gives it.
    mode = "independent" if crops else run.views.mode
    return dataclasses.replace(
        run,
        teacher=dataclasses.replace(run.teacher, cache=Cache()),
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
    """What the first process makes and the others find."""
    store = make() if hosts.is_first() else None
    hosts.wait_for_all("made the store")
    return store or make()


def _answer(parts: Parts, asked: Cache) -> Callable[..., Output]:
    """`(batch, given) -> Output` of all seeds: the very views of training, asked.

    Only the taps that are stored come out. A further output makes another program of a
    network, which rounds its logits otherwise than the live teacher does.
    """
    teacher = parts.teacher
    require(teacher is not None, "terms", "a term that asks the teacher", "none")
    assert teacher is not None

    def one(batch: Any, given: Any) -> Any:
        view = parts.view(batch["step"], batch, given)
        found: Any = teacher.targets({}, view, batch, given)
        return with_taps(found, asked.taps)

    unroll = parts.mesh.devices.flat[0].platform == "cpu"
    axes = (compiled.SEED_AXES, parts.given_axes)
    return jax.jit(map_seeds(one, axes, parts.run.seeds, unroll=unroll))


def _kept(task: _Task, output: Output) -> dict[str, Any]:
    """What is stored of `[seeds, batch, ...]` answers."""
    return keep(output, taps=task.cache.taps, **cache.likeliest(task.run))


def _rows_of(
    task: _Task, store: Store, block: int, tick: Callable[[], None]
) -> dict[str, np.ndarray]:
    """The rows of one block; `tick` is called after each batch."""
    span = store.span(block)
    if store.manifest["kind"] == "fixed":
        size = task.run.batch
        starts = range(span.start, span.stop, size)
        spans = [slice(x, min(x + size, span.stop)) for x in starts]
        parts = [_examples(task, each, tick) for each in spans]
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    coming = make_batches(task.parts)(span.start)
    rows = []
    for _ in range(span.start, span.stop):
        answer = task.answer(next(coming), task.given)
        rows.append(jax.device_get(_kept(task, answer)))
        tick()
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def _examples(
    task: _Task, span: slice, tick: Callable[[], None]
) -> dict[str, np.ndarray]:
    """The answers to at most a batch of examples, `[examples, seeds, ...]`."""
    parts, count = task.parts, span.stop - span.start
    size, crops = parts.run.batch, task.cache.crops
    # Where they are fewer the last one is repeated.
    places = np.minimum(np.arange(span.start, span.start + size), span.stop - 1)
    source = parts.train
    rows = {"label": source.labels[places], "id": source.ids[places], "place": places}
    rows.update(streamed.stored(source, places))
    seeds = np.arange(parts.run.seed, parts.run.seed + parts.run.seeds, dtype=np.int32)

    def ask(epoch: int) -> Output:
        epochs = {**rows, "epoch": np.full(size, epoch, np.int32)}
        every = {k: np.stack([x] * len(seeds)) for k, x in epochs.items()}
        batch = {"seed": seeds, "step": np.int32(0), "rows": every}
        batch |= numbers(parts, 0)
        answer = jax.block_until_ready(task.answer(batch, task.given))
        tick()
        return answer

    answer = ask(0)
    if crops:
        total = jax.nn.softmax(answer.logits)
        for crop in range(1, crops):
            total = total + jax.nn.softmax(ask(crop).logits)
        answer = Output(jnp.log(total / crops), {})
    found = jax.device_get(_kept(task, answer))
    return {k: np.moveaxis(x, 0, 1)[:count] for k, x in found.items()}


def _calls(task: _Task, store: Store, block: int) -> int:
    """How many batches a block asks about."""
    span = store.span(block)
    rows = span.stop - span.start
    if store.manifest["kind"] == "fixed":
        return max(1, task.cache.crops) * -(-rows // task.run.batch)
    return rows
