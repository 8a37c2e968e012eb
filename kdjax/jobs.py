"""What a user asks for: train, distil, evaluate, report. Each leaves a run folder."""

import dataclasses
import pathlib
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np
from rich.console import Console

from kdjax import build, reports
from kdjax import config as configs
from kdjax.build import Trained
from kdjax.config import Run, require
from kdjax.core import hosts, runlog
from kdjax.core.types import Model
from kdjax.data.sources import Source, Splits
from kdjax.models import zoo
from kdjax.train import compiled, loop, sharding
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.progress import Bar
from kdjax.train.trackers import check_installed, open_trackers


def train(
    run: Run,
    *,
    splits: Splits | None = None,
    model: Model | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Train one model by itself, on labels. Continues where its folder left off.

    Args:
      run: what to train; all its terms compare with labels.
      splits: arrays by split, in place of the data set that `run.data` names.
      model: in place of the one that `run.model` names.

    Returns:
      The run folder.
    """
    run = dataclasses.replace(run, teacher=None, baselines=())
    console = console or _console()
    data = _sources(run, splits)
    folder = pathlib.Path(run.workdir)
    _refuse_other(folder, run)
    build.check_fit(run, train=data["train"], student=model, teacher=None)
    return _train_one(run, folder, data, lambda: None, model, console)


def distill(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Distil a student, with its teacher and its label-only baselines beside it.

    The teacher is trained first where `run.teacher.run` names none. Every part is a run
    folder of its own: WORKDIR/teacher, WORKDIR/labels, ... and WORKDIR for the student.

    Args:
      run: what to do.
      splits: arrays by split, in place of the data set that `run.data` names.
      student: a model of the user's, in place of the one that `run.model` names.
      teacher: `(model, variables)` of the user's, in place of `run.teacher`; it sees
        images at `run.teacher.model.resolution`.

    Returns:
      The run folder, with `report.md` and `curves.png` over all parts.
    """
    console = console or _console()
    require(run.teacher is not None, "teacher", "a teacher to distil from", run.teacher)
    assert run.teacher is not None
    root = pathlib.Path(run.workdir)
    data = _sources(run, splits)
    parts = {
        root / name: build.baseline_run(run, name, root / name)
        for name in run.baselines
    }
    parts[root] = run
    trains_teacher = teacher is None and not run.teacher.run
    teacher_folder = root / "teacher" if trains_teacher else _teacher_folder(run, root)
    mesh = sharding.make_mesh(run.compute, run.batch)
    load = _teacher_loader(run, teacher, teacher_folder, mesh)
    if trains_teacher:
        own = build.teacher_run(run, teacher_folder)
        own_data = {**data, "train": build.load_source(own, "train", splits)}
        build.check_fit(own, train=own_data["train"], student=None, teacher=None)
        classes, channels = data["train"].classes, data["train"].images.shape[-1]
        known = build.model_of(own, classes, channels, None)
        _refuse_other(teacher_folder, own)
    else:
        known = load()
    # Everything is checked before anything is trained or written.
    for folder, part in parts.items():
        _refuse_other(folder, part)
        build.check_fit(part, train=data["train"], student=student, teacher=known)
    _claim(root, run)
    if trains_teacher:
        _train_one(own, teacher_folder, own_data, lambda: None, None, console)
    for folder, part in parts.items():
        _train_one(part, folder, data, load, student, console)
    hosts.wait_for_all(f"finished {root}")
    if not hosts.is_first():
        return root
    shown = [*([teacher_folder] if teacher is None else []), *parts]
    reports.write_report(shown, root)
    console.print(reports.terminal_table(reports.collect(shown)))
    console.print(f"report: {root / 'report.md'}", highlight=False, soft_wrap=True)
    return root


def evaluate(
    folder: str | pathlib.Path,
    *,
    split: str = "test",
    checkpoint: str = "last",
    splits: Splits | None = None,
    model: Model | None = None,
) -> dict[str, list[float]]:
    """Measure the trained model of a run folder, one number a seed.

    Args:
      folder: a finished run's.
      split: "test", "validation" or "train", as the run's config names them.
      checkpoint: "last" or "best" (on validation).
    """
    folder = pathlib.Path(folder)
    known = ("test", "validation", "train")
    require(split in known, "split", " or ".join(known), split)
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    run = build.read_run(folder)
    source = build.load_source(run, split, splits)
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    step = None
    if checkpoint == "best":
        keeper = Checkpoints(folder, read_only=True)
        step = keeper.best_step()
        keeper.close()
    student = build.load_trained(folder, mesh, model=model, step_number=step)
    teacher = None
    if run.teacher is not None and not run.teacher.run.startswith("("):
        teacher = _teacher_loader(run, None, _teacher_folder(run, folder), mesh)()
    measure = build.make_measure(student, teacher, run.seeds, mesh)
    return measure(student.variables, source)


def report(folders: list[str], out: str | pathlib.Path = "report") -> str:
    """Write `report.md` and `curves.png` over several run folders; returns the text."""
    return reports.write_report(folders, out)


def _console() -> Console:
    return Console(quiet=not hosts.is_first())


def _sources(run: Run, splits: Splits | None) -> dict[str, Source]:
    run.check()
    check_installed(run.trackers)
    names = ("train", "validation", "test")
    return {name: build.load_source(run, name, splits) for name in names}


# Fields that do not change what comes out: a run may go on with others.
_FREE = ("workdir", "compute", "trackers")


def _refuse_other(folder: pathlib.Path, run: Run) -> None:
    runlog.check_folder(folder, configs.to_dict(run), _FREE)


def _claim(folder: pathlib.Path, run: Run) -> None:
    hosts.wait_for_all(f"checked {folder}")
    if hosts.is_first():
        runlog.open_run(folder, configs.to_dict(run), _FREE)
    hosts.wait_for_all(f"claimed {folder}")


def _teacher_folder(run: Run, folder: pathlib.Path) -> pathlib.Path:
    """Where the teacher of a run folder is: named in its config, or beneath it."""
    name = run.teacher.run if run.teacher else ""
    if not name:
        return folder / "teacher"
    beside = folder / name
    return beside if (beside / "config.json").is_file() else pathlib.Path(name)


def _teacher_loader(run, given, folder, mesh) -> Callable[[], Trained]:
    """A function that loads the teacher once it is there."""
    if given is not None:
        model, variables = given
        shared = Trained(model, variables, None, run.teacher.model.resolution)
        return lambda: shared

    def load() -> Trained:
        found = folder / "config.json"
        require(found.is_file(), "teacher.run", "a run folder", str(folder))
        trained = build.load_trained(folder, mesh)
        return build.fit_seeds(trained, build.read_run(folder).seeds, run)

    return load


def _train_one(
    run: Run,
    folder: pathlib.Path,
    data: dict[str, Source],
    load_teacher: Callable[[], Trained | None],
    student: Model | None,
    console: Console,
) -> pathlib.Path:
    """Train one run in its folder, from where it left off, and measure it."""
    if runlog.is_finished(folder):
        _refuse_other(folder, run)
        console.print(f"{run.name}: finished in {folder}", highlight=False)
        return folder
    teacher = load_teacher()
    parts = build.make_parts(run, train=data["train"], student=student, teacher=teacher)
    _claim(folder, run)
    checkpoints = Checkpoints(folder)
    try:
        own = Trained(parts.student, None, 0, run.model.resolution)
        measure = build.make_measure(own, teacher, run.seeds, parts.mesh)

        def held_out(state: Any, split: str) -> dict[str, list[float]]:
            return measure(build.student_variables(state), data[split])

        state, seconds = _fit(parts, held_out, folder, checkpoints, console)
        test = held_out(state, "test")
        variables = build.student_variables(state)
    finally:
        checkpoints.close()
    hosts.wait_for_all(f"measured {folder}")
    if not hosts.is_first():
        return folder
    runlog.write_json(
        folder / "summary.json",
        {
            "name": run.name,
            "steps": run.steps,
            "seeds": list(range(run.seed, run.seed + run.seeds)),
            "parameters": zoo.count_parameters(variables) // run.seeds,
            "classes": data["train"].classes,
            "channels": data["train"].images.shape[-1],
            "seconds": round(seconds, 1),
            "test": test,
            "command": " ".join(["kdjax", *sys.argv[1:]]),
            "machine": _machine(),
            "versions": _versions(),
        },
    )
    reports.write_report([folder], folder)
    return folder


def _fit(parts, held_out, folder, checkpoints, console):
    """Train from the last checkpoint, or from the beginning, to the end."""
    run, mesh = parts.run, parts.mesh
    call = compiled.compile_step(
        parts.step, mesh, parts.given_axes, run.seeds, run.compute.how
    )
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)
    start, seconds = checkpoints.last_step() or 0, 0.0
    if start:
        like = sharding.abstract_sharded(parts.make_state, mesh, seeds)
        state = checkpoints.restore(like)
        lines = [x for x in runlog.read_metrics(folder) if x["step"] <= start]
        seconds = lines[-1]["seconds"] if lines else 0.0
        console.print(f"{run.name}: continuing at step {start}", highlight=False)
    else:
        state = sharding.create_sharded(parts.make_state, mesh, seeds)
    # What an interrupted run wrote after its last checkpoint will be written again.
    if hosts.is_first():
        runlog.truncate_metrics(folder, start)
    trackers = run.trackers if hosts.is_first() else ()
    tracked = open_trackers(trackers, folder, run.name, configs.to_dict(run))
    with Bar(run.name, run.steps, start, console) as bar, tracked as track:

        def write(line: dict[str, Any]) -> None:
            if hosts.is_first():
                runlog.append_metrics(folder, line)
                track(line)

        try:
            return loop.fit(
                call,
                state,
                build.place_given(parts),
                build.make_plan(run),
                batch_at=build.make_batches(parts),
                evaluate=lambda state: held_out(state, "validation"),
                write=write,
                checkpoints=checkpoints,
                bar=bar,
                seconds=seconds,
            )
        except loop.NonFiniteLossError as error:
            checkpoints.wait()
            last = checkpoints.last_step()
            kept = f"step {last}" if last else "none yet"
            text = f"{run.name}: {error}. Last good checkpoint: {kept}"
            raise loop.NonFiniteLossError(text) from None
        except loop.Interrupted as error:
            text = f"{run.name}: {error}; the same command continues there"
            raise loop.Interrupted(text) from None


def _machine() -> str:
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    return f"{kind}, {platform.machine()}, {_cores()} CPU cores"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def _versions() -> dict[str, str]:
    names = ("kdjax", "jax", "flax", "optax", "orbax-checkpoint")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
