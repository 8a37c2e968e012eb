"""Computing a teacher's targets ahead of time, for `teacher.cache`."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from kdjax import build
from kdjax.build import cache
from kdjax.build.feeds import make_batches, place_given
from kdjax.build.parts import Parts
from kdjax.config import Cache, ConfigError, Run, require
from kdjax.core import hosts
from kdjax.core.seeds import map_seeds
from kdjax.core.types import Model, Output
from kdjax.data import streamed
from kdjax.data.sources import Splits
from kdjax.data.store import Rows, Store, create_store
from kdjax.jobs.start import Job, start
from kdjax.jobs.teachers import look_at_teacher, teacher_folder, teacher_loader
from kdjax.teachers.cached import keep
from kdjax.train import compiled, sharding
from kdjax.train.progress import Bar

# Bytes of a block, which is written, checked and repeated as a whole.
_BLOCK = 4 * 2**20


class _Task(NamedTuple):
    """Whom to ask about what.

    run: as it is given. parts: of the same run with a live teacher.
    answer: `(batch, given) -> Output` of `[seeds, batch, ...]`.
    """

    run: Run
    parts: Parts
    answer: Callable[..., Output]
    given: dict[str, Any]


def cache_targets(
    run: Run,
    *,
    splits: Splits | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Run the teacher over the views that a run will show its student; store targets.

    What is stored already and passes its checksums is kept, the rest is computed: the
    same call continues after an interruption, and mends a damaged store. Several
    processes share the blocks among them.

    Args:
      run: the run that will read them, `run.teacher.cache` included.
      splits, teacher: as `distill` takes them.

    Returns:
      The store's folder, `run.teacher.cache.path`.

    Raises:
      ConfigError: a field that cannot be used. StoreError: the folder holds the targets
      of something else, or cannot be written.
    """
    require(run.teacher is not None, "teacher", "a teacher to ask", run.teacher)
    assert run.teacher is not None
    asked = run.teacher.cache
    require(bool(asked.path), "teacher.cache.path", "a folder or URL", asked.path)
    job = start(run, splits, None, teacher, console)
    task, store = _prepare(run, job, teacher)
    missing = store.missing()
    ours = [b for b in missing if b % jax.process_count() == jax.process_index()]
    _forecast(store, missing, job.console)
    with Bar("cache", len(ours), 0, job.console) as bar:
        for done, block in enumerate(ours, start=1):
            begun = time.perf_counter()
            store.write(block, _rows_of(task, store, block))
            views = _views(task, store, block)
            bar.show(done, views / (time.perf_counter() - begun), 0.0, None)
    hosts.wait_for_all(f"cached {asked.path}")
    return pathlib.Path(asked.path)


def _prepare(
    run: Run, job: Job, given: tuple[Model, Any] | None
) -> tuple[_Task, Store]:
    assert run.teacher is not None
    folder = teacher_folder(run, pathlib.Path(run.workdir))
    mesh = sharding.make_mesh(run.compute, run.batch)
    source = job.data["train"]
    trained_first = given is None and run.teacher.trained_first
    want = "a teacher that is there: teacher.run, or teacher.model.weights"
    there = not trained_first or (folder / "config.json").is_file()
    require(there, "teacher", want, f"none in {folder}")
    teacher = teacher_loader(run, given, folder, mesh, source)()
    require(teacher is not None, "teacher.kind", "model", run.teacher.kind)
    assert teacher is not None
    look_at_teacher(run, teacher, mesh, job)
    fixed, crops = run.views.mode == "fixed", run.teacher.cache.crops
    require(
        not crops or fixed, "teacher.cache.crops", "0 unless views.mode is fixed", crops
    )
    # Crops of the teacher's own, to be averaged, are what `independent` gives it.
    mode = "independent" if crops else run.views.mode
    alone = dataclasses.replace(
        run,
        teacher=dataclasses.replace(run.teacher, cache=Cache()),
        views=dataclasses.replace(run.views, mode=mode),
        seeds=1 if fixed and teacher.axis is None else run.seeds,
    )
    parts = build.make_parts(alone, train=source, teacher=teacher)
    task = _Task(run, parts, _answer(parts), place_given(parts))
    batch = next(make_batches(parts)(0))
    try:
        shapes = jax.eval_shape(
            lambda x: _kept(task, task.answer(x, task.given)), batch
        )
    except ValueError as error:
        raise ConfigError(f"teacher.cache: {error}") from error
    lead = (alone.seeds,) if fixed else (alone.seeds, run.batch)
    arrays = {k: Rows((*lead, *x.shape[2:]), x.dtype.name) for k, x in shapes.items()}
    size = sum(x.nbytes for x in arrays.values())
    rows = cache.plan_rows(run, source)
    block = run.batch if fixed else max(1, min(rows, _BLOCK // size))
    of = cache.manifest(run, source, teacher)
    store = create_store(run.teacher.cache.path, of, arrays, rows=rows, block=block)
    return task, store


def _answer(parts: Parts) -> Callable[..., Output]:
    """`(batch, given) -> Output` of all seeds: the very views of training, asked."""
    teacher = parts.teacher
    require(teacher is not None, "terms", "a term that asks the teacher", "none")
    assert teacher is not None

    def one(batch: Any, given: Any) -> Any:
        view = parts.view(batch["step"], batch, given)
        return teacher.targets({}, view, batch, given)

    unroll = parts.mesh.devices.flat[0].platform == "cpu"
    axes = (compiled.SEED_AXES, parts.given_axes)
    return jax.jit(map_seeds(one, axes, parts.run.seeds, unroll=unroll))


def _kept(task: _Task, output: Output) -> dict[str, Any]:
    """What is stored of `[seeds, batch, ...]` answers."""
    assert task.run.teacher is not None
    asked = task.run.teacher.cache
    options: dict[str, Any] = {"top_k": asked.top_k, "taps": asked.taps}
    if asked.top_k:
        options["temperature"] = cache.temperature(task.run)
    return keep(output, **options)


def _rows_of(task: _Task, store: Store, block: int) -> dict[str, np.ndarray]:
    """The rows of one block."""
    span = store.span(block)
    if store.manifest["kind"] == "fixed":
        return _examples(task, span)
    coming = make_batches(task.parts)(span.start)
    rows = []
    for _ in range(span.start, span.stop):
        answer = task.answer(next(coming), task.given)
        rows.append(jax.device_get(_kept(task, answer)))
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def _examples(task: _Task, span: slice) -> dict[str, np.ndarray]:
    """The answers to the examples of a block, `[examples, seeds, ...]`."""
    parts, count = task.parts, span.stop - span.start
    assert task.run.teacher is not None
    size, crops = parts.run.batch, task.run.teacher.cache.crops
    # Blocks have the size of a batch; the last one repeats its last example.
    places = np.minimum(np.arange(span.start, span.start + size), span.stop - 1)
    source = parts.train
    rows = {"label": source.labels[places], "id": source.ids[places], "place": places}
    rows.update(streamed.stored(source, places))
    seeds = np.arange(parts.run.seed, parts.run.seed + parts.run.seeds, dtype=np.int32)

    def ask(epoch: int) -> Output:
        epochs = {**rows, "epoch": np.full(size, epoch, np.int32)}
        every = {k: np.stack([x] * len(seeds)) for k, x in epochs.items()}
        knobs = parts.strategy.knobs(0)
        batch = {"seed": seeds, "step": np.int32(0), "knobs": knobs, "rows": every}
        return task.answer(batch, task.given)

    answer = ask(0)
    if crops:
        total = jax.nn.softmax(answer.logits)
        for crop in range(1, crops):
            total = total + jax.nn.softmax(ask(crop).logits)
        answer = Output(jnp.log(total / crops), {})
    found = jax.device_get(_kept(task, answer))
    return {k: np.moveaxis(x, 0, 1)[:count] for k, x in found.items()}


def _views(task: _Task, store: Store, block: int) -> int:
    """How many images a block asks about."""
    assert task.run.teacher is not None
    span, crops = store.span(block), task.run.teacher.cache.crops
    each = max(1, crops) if store.manifest["kind"] == "fixed" else task.run.batch
    return (span.stop - span.start) * each * task.parts.run.seeds


def _forecast(store: Store, missing: list[int], console: Console) -> None:
    size = sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in store.manifest["layout"]["arrays"].values()
    )
    whole = size * store.rows / 2**20
    console.print(
        f"{store.path}: {store.rows} rows, {whole:.1f} MiB; {len(missing)} of "
        f"{store.blocks} blocks to compute",
        highlight=False,
    )
