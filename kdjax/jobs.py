"""What a user asks for: train, distil, evaluate, report. Each leaves a run folder."""

import dataclasses
import hashlib
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

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


class _Job(NamedTuple):
    """What the parts of one job share: data, and what was handed over from Python."""

    data: dict[str, Source]
    splits: Splits | None
    student: Model | None
    given: dict[str, str]
    console: Console


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
    job = _start(run, splits, model, None, console)
    folder = pathlib.Path(run.workdir)
    _refuse_other(folder, run, job.given)
    build.check_fit(run, train=job.data["train"], student=model, teacher=None)
    return _train_one(run, folder, job, lambda: None)


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
    job = _start(run, splits, student, teacher, console)
    require(run.teacher is not None, "teacher", "a teacher to distil from", run.teacher)
    assert run.teacher is not None
    root = pathlib.Path(run.workdir)
    parts = {
        root / name: build.baseline_run(run, name, root / name)
        for name in run.baselines
    }
    parts[root] = run
    teacher_folder = _teacher_folder(run, root)
    mesh = sharding.make_mesh(run.compute, run.batch)
    load = _teacher_loader(run, teacher, teacher_folder, mesh)
    own, own_job = None, job
    if teacher is None and not run.teacher.run:
        own, own_job = _own_teacher(run, teacher_folder, job)
        source = job.data["train"]
        classes, channels = source.classes, source.images.shape[-1]
        known = build.model_of(own, classes, channels, None)
    else:
        known = load()
    # Everything is checked before anything is trained or written.
    for folder, part in parts.items():
        _refuse_other(folder, part, job.given)
        source = job.data["train"]
        build.check_fit(part, train=source, student=student, teacher=known)
    _claim(root, run, job.given)
    if own is not None:
        _train_one(own, teacher_folder, own_job, lambda: None)
    for folder, part in parts.items():
        _train_one(part, folder, job, load)
    hosts.wait_for_all(f"finished {root}")
    if hosts.is_first():
        shown = [*([teacher_folder] if teacher is None else []), *parts]
        reports.write_report(shown, root)
        job.console.print(reports.terminal_table(reports.collect(shown)))
        text = f"report: {root / 'report.md'}"
        job.console.print(text, highlight=False, soft_wrap=True)
    return root


def evaluate(
    folder: str | pathlib.Path,
    *,
    split: str = "test",
    checkpoint: str = "last",
    splits: Splits | None = None,
    model: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
) -> dict[str, list[float]]:
    """Measure the trained model of a run folder, one number a seed.

    Args:
      folder: a finished run's.
      split: "test", "validation" or "train", as the run's config names them.
      checkpoint: "last" or "best" (on validation).
      splits, model, teacher: as they were handed to `distill` or `train`. Without the
        teacher that was handed over, agreement and KL are left out.
    """
    folder = pathlib.Path(folder)
    known = ("test", "validation", "train")
    require(split in known, "split", " or ".join(known), split)
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    run, given = build.read_run(folder), build.read_given(folder)
    for name, value in (("splits", splits), ("model", model)):
        want = f"the {name} that this run was given from Python"
        require(name not in given or value is not None, name, want, value)
    source = build.load_source(run, split, splits)
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    step = None
    if checkpoint == "best":
        keeper = Checkpoints(folder, read_only=True)
        step = keeper.best_step()
        keeper.close()
    student = build.load_trained(folder, mesh, model=model, step_number=step)
    asks = run.teacher is not None and ("teacher" not in given or teacher is not None)
    found = None
    if asks:
        found = _teacher_loader(run, teacher, _teacher_folder(run, folder), mesh)()
    measure = build.make_measure(student, found, run.seeds, mesh)
    return measure(student.variables, source)


def report(folders: list[str], out: str | pathlib.Path = "report") -> str:
    """Write `report.md` and `curves.png` over several run folders; returns the text."""
    return reports.write_report(folders, out)


def _start(run, splits, student, teacher, console) -> _Job:
    """Check what can be checked without tracing, and load the data."""
    run.check()
    check_installed(run.trackers)
    made = "a kdjax Model (from_linen, from_nnx or from_function make one)"
    ok = student is None or isinstance(student, Model)
    require(ok, "student", made, type(student).__name__)
    pair = isinstance(teacher, tuple) and len(teacher) == 2
    ok = teacher is None or (pair and isinstance(teacher[0], Model))
    require(
        ok, "teacher", f"a pair of {made} and its variables", type(teacher).__name__
    )
    names = ("train", "validation", "test")
    data = {name: build.load_source(run, name, splits) for name in names}
    train = data["train"]
    for name in names[1:]:
        shape, want = data[name].images.shape[1:], train.images.shape[1:]
        require(shape == want, f"data.{name}", f"images as in data.train {want}", shape)
        highest = int(data[name].labels.max())
        want = f"labels below {train.classes} (the classes of data.train)"
        require(highest < train.classes, f"data.{name}", want, highest)
    given = _fingerprints(splits, student, teacher)
    console = console or Console(quiet=not hosts.is_first())
    return _Job(data, splits, student, given, console)


def _fingerprints(splits, student, teacher) -> dict[str, str]:
    """A line for each thing that came from Python, for `config.json` to name it."""
    given = {}
    if splits is not None:
        given["splits"] = _digest([splits[name] for name in sorted(splits)])
    if student is not None:
        given["model"] = "a model of the caller's"
    if teacher is not None:
        given["teacher"] = _digest(teacher[1])
    return given


def _digest(tree: Any) -> str:
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        x = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return sha.hexdigest()[:16]


def _own_teacher(run: Run, folder: pathlib.Path, job: _Job) -> tuple[Run, _Job]:
    """The run that trains the teacher, checked, with its data."""
    own = build.teacher_run(run, folder)
    source = build.load_source(own, "train", job.splits)
    given = {k: v for k, v in job.given.items() if k == "splits"}
    own_job = job._replace(
        data={**job.data, "train": source}, student=None, given=given
    )
    _refuse_other(folder, own, given)
    build.check_fit(own, train=source, student=None, teacher=None)
    return own, own_job


# Fields that do not change what comes out: a run may go on with others.
_FREE = ("workdir", "compute", "trackers")


def _identity(run: Run, given: dict[str, str]) -> dict[str, Any]:
    values = configs.to_dict(run)
    return {**values, "given": given} if given else values


def _refuse_other(folder: pathlib.Path, run: Run, given: dict[str, str]) -> None:
    runlog.check_folder(folder, _identity(run, given), _FREE)


def _claim(folder: pathlib.Path, run: Run, given: dict[str, str]) -> None:
    hosts.wait_for_all(f"checked {folder}")
    if hosts.is_first():
        runlog.open_run(folder, _identity(run, given), _FREE)
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
    job: _Job,
    load_teacher: Callable[[], Trained | None],
) -> pathlib.Path:
    """Train one run in its folder, from where it left off, and measure it."""
    if runlog.is_finished(folder):
        job.console.print(f"{run.name}: finished in {folder}", highlight=False)
        return folder
    teacher, train = load_teacher(), job.data["train"]
    parts = build.make_parts(run, train=train, student=job.student, teacher=teacher)
    _claim(folder, run, job.given)
    checkpoints = Checkpoints(folder)
    try:
        own = Trained(parts.student, None, 0, run.model.resolution)
        measure = build.make_measure(own, teacher, run.seeds, parts.mesh)

        def held_out(state: Any, split: str) -> dict[str, list[float]]:
            return measure(build.student_variables(state), job.data[split])

        state, seconds = _fit(parts, held_out, folder, checkpoints, job.console)
        test = held_out(state, "test")
        parameters = zoo.count_parameters(build.student_variables(state)) // run.seeds
    finally:
        checkpoints.close()
    hosts.wait_for_all(f"measured {folder}")
    if hosts.is_first():
        summary = _summary(run, train, test, parameters, seconds)
        runlog.write_json(folder / "summary.json", summary)
        reports.write_report([folder], folder)
    return folder


def _summary(run, train: Source, test, parameters: int, seconds: float) -> dict:
    return {
        "name": run.name,
        "steps": run.steps,
        "seeds": list(range(run.seed, run.seed + run.seeds)),
        "parameters": parameters,
        "classes": train.classes,
        "channels": train.images.shape[-1],
        "seconds": round(seconds, 1),
        "test": test,
        "command": _command(),
        "machine": _machine(),
        "versions": _versions(),
    }


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
        except loop.NonFiniteError as error:
            checkpoints.wait()
            last = checkpoints.last_step()
            kept = f"step {last}" if last else "none yet"
            text = f"{run.name}: {error}. Last good checkpoint: {kept}"
            raise loop.NonFiniteError(text) from None
        except loop.Interrupted as error:
            text = f"{run.name}: {error}; the same command continues there"
            raise loop.Interrupted(text, error.number) from None


def _command() -> str:
    """The command that made a run, as it can be typed again."""
    name = pathlib.Path(sys.argv[0]).name
    if name == "kdjax" or name == "__main__.py":
        return shlex.join(["kdjax", *sys.argv[1:]])
    return f"called from Python ({name or 'interactive'})"


def _machine() -> str:
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    return f"{kind}, {platform.machine()}, {_cores()} CPU cores"


def _cores() -> int:
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
