"""Every run of an experiment that is not finished, one after another."""

import contextlib
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from kdjax import build, reports
from kdjax.config import (
    ConfigError,
    Experiment,
    Member,
    Model,
    Run,
    Teacher,
    load_experiment,
    put_beside,
    require,
    run_folder,
    runs_beside,
)
from kdjax.core import hosts, runlog
from kdjax.core.runlog import RunFolderError
from kdjax.jobs.caching import cache_targets
from kdjax.jobs.distilling import distill, train
from kdjax.jobs.start import BusyFolderError, held, refuse_other_config
from kdjax.jobs.teachers import check_described
from kdjax.models import weights, zoo
from kdjax.train.loop import Interrupted


class SweepError(RuntimeError):
    """Some runs of a sweep have failed; the text names them."""


class _Task(NamedTuple):
    """One run of a sweep, and those on labels that must be there before it."""

    variant: str
    times: int
    run: Run
    before: tuple[Run, ...]

    @property
    def finished(self) -> bool:
        return runlog.is_finished(self.run.folder)


def sweep(
    experiment: Experiment,
    scale: str = "digits",
    *,
    seeds: int = 5,
    workdir: str = "",
    variants: Collection[str] = (),
    times: Collection[int] = (),
    console: Console | None = None,
) -> pathlib.Path:
    """Train what is not finished of an experiment, and report on all of it.

    Each variant and duration is a run folder WORKDIR/VARIANT-xTIMES, its seeds side by
    side in one program; teachers and first runs that several share are trained once. A
    run that fails is reported and left, the others go on. The same command continues.
    Programs are compiled once and kept in WORKDIR/compiled.

    Args:
      experiment: what is compared (`kdjax.config.load_experiment`).
      scale: one of the experiment's.
      seeds: how many, from 0.
      workdir: by default runs/sweeps/NAME/SCALE.
      variants: those to train now; all if empty. A later call may train the others.
      times: the durations to train now, as multiples of the shortest; all if empty.

    Returns:
      The sweep's folder, with `report.md` and its figures.

    Raises:
      ConfigError: the scale, one of `variants` or of `times` is unknown, or a variant
        has a field that is no good, names no model or no weights, or describes a
        teacher otherwise than the run that trains it; before any run. Data are looked
        for when a run begins, and what is on the hub of Hugging Face.
      RunFolderError: a folder is of another number of seeds, scale or config, or what a
        finished run left in it cannot be read; before any run.
      SweepError: at the end, where runs have failed; the text names them.
    """
    require(seeds >= 1, "seeds", "at least 1", seeds)
    # However it is spelled, since runs name others of the sweep by it.
    root = pathlib.Path(workdir or experiment.folder(scale)).expanduser().resolve()
    console = console or Console(quiet=not hosts.is_first())
    about = {
        "experiment": str(experiment.path),
        "scale": scale,
        "seeds": seeds,
        "folder": str(root),
    }
    _refuse_other_sweep(root, about)
    whole = plan(experiment, root, scale, seeds)
    tasks = _part(experiment, whole, variants, times)
    # The report is of all runs, also of those that are not asked for.
    for task in whole:
        check(task)
        for run in (*task.before, task.run):
            refuse_other_config(run.folder, run)
    for task in tasks:
        _check_weights(task)
    reports.finished_runs(experiment, root, scale)
    if hosts.is_first():
        _make(root, about)
    with _compiling_once(root / "compiled"):
        failed = _run_all(tasks, console)
    if hosts.is_first():
        reports.write_sweep_report(root)
        console.print(f"report: {root / 'report.md'}", highlight=False, soft_wrap=True)
    if failed:
        runs = "run" if len(failed) == 1 else "runs"
        raise SweepError("\n  ".join([f"{len(failed)} {runs} failed:", *failed]))
    return root


def check(task: _Task) -> None:
    """Raise `ConfigError`, naming the run, for what can be told from its config."""
    trained = {run.folder.name: run for run in task.before}
    for run in (*task.before, task.run):
        try:
            run.check()
            for field, model in _models(run):
                zoo.maker(model, field)
            for field, member in _teachers(run):
                its = trained.get(pathlib.Path(member.run).name)
                if its is not None:
                    check_described(member, its.model, its.folder, field)
        except ConfigError as error:
            raise ConfigError(f"{run.name}: {error}") from error


def _check_weights(task: _Task) -> None:
    """Raise `ConfigError` for weights of a run that are not there, while it is left."""
    made = {str(run.folder) for run in task.before}
    for run in () if task.finished else (*task.before, task.run):
        for field, model in _models(run):
            if not model.weights or model.weights in made:
                continue
            try:
                weights.find(model.weights)
            except weights.WeightsError as error:
                raise ConfigError(f"{run.name}: {field}.weights: {error}") from error


def _models(run: Run) -> Iterator[tuple[str, Model]]:
    """The models of a run's config, by their fields."""
    yield "model", run.model
    for field, teacher in _teachers(run):
        yield f"{field}.model", teacher.model


def _teachers(run: Run) -> Iterator[tuple[str, Teacher | Member]]:
    """The teachers of a run's config, by their fields."""
    if run.teacher is not None:
        yield "teacher", run.teacher
        for i, member in enumerate(run.teacher.also):
            yield f"teacher.also.{i}", member


def _part(
    experiment: Experiment,
    tasks: list[_Task],
    variants: Collection[str],
    times: Collection[int],
) -> list[_Task]:
    """Those that are asked for; all are planned, for a part to have the whole's
    teachers."""
    for name, asked, known in (
        ("variants", variants, tuple(experiment.variants)),
        ("times", times, tuple(dict.fromkeys(task.times for task in tasks))),
    ):
        require(set(asked) <= set(known), name, f"some of {known}", tuple(asked))
    return [
        task
        for task in tasks
        if task.variant in (variants or experiment.variants)
        and task.times in (times or (task.times,))
    ]


def _make(root: pathlib.Path, about: dict[str, Any]) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"workdir: expected a folder, got {root}: {error.strerror}"
        raise RunFolderError(text) from error
    runlog.write_json(root / "sweep.json", about)


@contextlib.contextmanager
def _compiling_once(folder: pathlib.Path) -> Iterator[None]:
    """Keep compiled programs in a folder, unless the user keeps them already: variants
    that differ in numbers, and all durations of one, are the same program."""
    field = "jax_compilation_cache_dir"
    before = getattr(jax.config, field)
    if before:
        yield
        return
    jax.config.update(field, str(folder))
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update(field, before)
        compilation_cache.reset_cache()


def report_sweep(folder: str | pathlib.Path) -> str:
    """Write `report.md` and its figures of a sweep into its folder, as far as it is:
    the Markdown.

    Raises:
      ConfigError: the experiment's file is gone, or is no experiment any more.
      RunFolderError: the folder is no sweep's, or has runs of other configs than the
        file.
    """
    root = pathlib.Path(folder).expanduser().resolve()
    about = reports.read_sweep(root)
    experiment = load_experiment(about["experiment"])
    # Runs name others by where they were; the folder may have moved since.
    there = pathlib.Path(about.get("folder", root))
    for task in plan(experiment, there, about["scale"], about["seeds"]):
        refuse_other_config(root / task.run.folder.name, task.run)
    return reports.write_sweep_report(root)


def _refuse_other_sweep(root: pathlib.Path, about: dict[str, Any]) -> None:
    """The file may have moved, with the folder that it is in."""
    there_is = (root / "sweep.json").is_file()
    before = reports.read_sweep(root) if there_is else about
    for name in ("experiment", "scale", "seeds"):
        there, here = before[name], about[name]
        if name == "experiment":
            there, here = ("/".join(pathlib.Path(x).parts[-2:]) for x in (there, here))
        if there != here:
            text = f"{name}: folder has {there}, this sweep has {here}"
            raise RunFolderError(f"workdir: {root} holds another sweep: {text}")


def plan(
    experiment: Experiment, root: pathlib.Path, scale: str, seeds: int
) -> list[_Task]:
    """The runs of a sweep, shortest first, so that there is early something to see."""
    teachers: dict[str, Run] = {}
    tasks = []
    for times in experiment.times(scale):
        for variant in experiment.variants:
            run = experiment.run(variant, scale, times)
            folder = root / run_folder(variant, times)
            run = dataclasses.replace(run, workdir=str(folder), seeds=seeds)
            first = tuple(
                dataclasses.replace(
                    experiment.first_run(name, scale),
                    workdir=str(root / name),
                    seeds=seeds,
                    teacher=None,
                    baselines=(),
                )
                for name in sorted(runs_beside(run))
            )
            run, teacher = _with_teacher(put_beside(run, root), root, teachers)
            tasks.append(_Task(variant, times, run, teacher + first))
    return tasks


def _with_teacher(
    run: Run, root: pathlib.Path, teachers: dict[str, Run]
) -> tuple[Run, tuple[Run, ...]]:
    """A run, and that of its teacher where it is to be trained first and shared."""
    asked = run.teacher
    if asked is None:
        return run, ()
    if asked.cache.path:
        cache = dataclasses.replace(asked.cache, path=f"{run.workdir}-targets")
        asked = dataclasses.replace(asked, cache=cache)
    before: tuple[Run, ...] = ()
    if asked.trained_first:
        pace = {"evaluate_every": 100, "checkpoint_every": 200, "log_every": 100}
        own = dataclasses.replace(build.teacher_run(run, root), **pace)
        name = _name_teacher(own, root, teachers)
        before = (dataclasses.replace(own, workdir=str(root / name)),)
        asked = dataclasses.replace(asked, run=f"../{name}")
    return dataclasses.replace(run, teacher=asked), before


def _name_teacher(own: Run, root: pathlib.Path, teachers: dict[str, Run]) -> str:
    """The folder of a teacher: the one that it has, or the first that is free. Names
    stay as they are when a variant with another teacher is added."""
    own_already = [name for name, other in teachers.items() if other == own]
    there = [p.parent.name for p in sorted(root.glob("teacher-*/config.json"))]
    found = [n for n in there if n not in teachers and _is_of(root / n, own)]
    numbered = (f"teacher-{number}" for number in itertools.count())
    free = (n for n in numbered if n not in teachers and n not in there)
    name = (own_already or found or [next(free)])[0]
    teachers[name] = own
    return name


def _is_of(folder: pathlib.Path, run: Run) -> bool:
    """Whether a run's config is that of a folder."""
    try:
        refuse_other_config(folder, run)
    except RunFolderError:
        return False
    return True


def _run_all(tasks: list[_Task], console: Console) -> list[str]:
    """Train what is not finished; a line for each run that failed."""
    left = [task for task in tasks if not task.finished]
    console.print(f"{len(tasks)} runs, {len(tasks) - len(left)} finished")
    failed: list[str] = []
    busy: list[str] = []
    done: list[tuple[int, float]] = []
    for number, task in enumerate(left, start=1):
        ahead = time_left(done, [other.run.steps for other in left[number - 1 :]])
        text = f"[{number}/{len(left)}] {task.run.name}, {task.run.steps} updates"
        console.print(f"{text}{ahead}", style="bold", highlight=False)
        try:
            seconds = _run_one(task, console)
        except Interrupted:
            raise
        except BusyFolderError:
            busy.append(task.run.name)
            console.print("another process is training it", highlight=False)
        except Exception as error:
            failed.append(f"{task.run.name}: {error}")
            text = f"failed: {failed[-1]}"
            console.print(text, style="red", highlight=False, markup=False)
        else:
            done.append((task.run.steps, seconds))
        # Some hundred programs are more than a process has memory maps for.
        jax.clear_caches()
    if busy:
        text = f"left to other processes: {', '.join(busy)}"
        console.print(text, highlight=False)
    return failed


def time_left(done: list[tuple[int, float]], ahead: list[int]) -> str:
    """How long runs of so many updates will take, from (updates, seconds) of others.

    A run costs a start and its updates, fitted once there are two lengths; before,
    the text gives the time with all of it in the updates, which is the most.
    """
    if not done:
        return ""
    steps, seconds = np.asarray(done, float).T
    if np.ptp(steps) == 0:
        most = np.mean(seconds) * max(sum(ahead) / steps[0], len(ahead))
        return f", at most {_duration(most)} left"
    pace, start = np.polyfit(steps, seconds, 1)
    if pace <= 0 or start < 0:
        pace, start = sum(seconds) / sum(steps), 0.0
    return f", about {_duration(start * len(ahead) + pace * sum(ahead))} left"


def _run_one(task: _Task, console: Console) -> float:
    """Seconds that it took, those of what others share with it not counted."""
    run = task.run
    with held(run.folder):
        for first in task.before:
            _train_first(first, console)
        start = time.monotonic()
        if run.teacher is None:
            train(run, console=console)
        else:
            # Another process may have finished it since the sweep began.
            if run.teacher.cache.path and not task.finished:
                cache_targets(run, console=console)
            distill(run, console=console)
        return time.monotonic() - start


def _train_first(run: Run, console: Console) -> None:
    """Train what others need, or wait for the process that does."""
    try:
        train(run, console=console)
    except BusyFolderError:
        console.print(f"{run.name}: waiting for the process that trains it")
        with held(run.folder, wait=True):
            train(run, console=console)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(minutes, 1):.0f} min"
