"""Sweeps: every unfinished run of an experiment, one after another."""

import pathlib
import time
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from rich.console import Console

from kdjax.config import Run, require, require_known, require_local
from kdjax.core import hosts, runlog
from kdjax.core.compilation import cache_programs
from kdjax.core.runlog import RunFolderError
from kdjax.experiments.experiment import Experiment
from kdjax.experiments.loading import load_experiment
from kdjax.experiments.planning import Task, check, check_weights, plan
from kdjax.experiments.records import (
    Runs,
    finished_runs,
    is_packed,
    is_sweep,
    read_sweep,
    unpack,
)
from kdjax.experiments.reporting import write_sweep_report
from kdjax.jobs.caching import cache_targets
from kdjax.jobs.distilling import distill, train
from kdjax.jobs.start import BusyFolderError, lock_folder
from kdjax.setup.identity import identify_planned, parse_identity, refuse_other
from kdjax.train.loop import Interrupted

_LOCAL = "a folder on this machine (sweeps in a bucket are not possible)"


class SweepError(RuntimeError):
    """Some runs of a sweep have failed; the text names them."""


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
    """Train the unfinished runs of an experiment, and report on all of it.

    Each variant and duration is a run folder WORKDIR/VARIANT-xTIMES. Its seeds are
    trained side by side in one program. Shared teachers and pretraining runs are
    trained once. A failed run is reported, and the others are still trained. The same
    command resumes, also from the `records.jsonl` of a sweep alone. Compiled programs
    are kept in the user's cache folder (`kdjax.core.compilation`).

    Args:
      experiment: the value, or that of a file (`kdjax.experiments.load_experiment`).
      scale: one of the experiment's.
      seeds: the number of seeds, from 0.
      workdir: by default runs/sweeps/NAME/SCALE.
      variants: those to train now; all if empty. A later call may train the others.
      times: the durations to train now, as multiples of the shortest; all if empty.

    Returns:
      The sweep's folder, with `report.md`, its figures and `records.jsonl`.

    Raises:
      ConfigError: the scale, one of `variants` or of `times` is unknown; or a variant
        has an invalid field, an unknown model, missing weights or a teacher whose
        description differs from its run. Before any run. Data sets and weights on
        Hugging Face's hub are looked up when their run begins.
      RunFolderError: a folder holds another number of seeds, scale or config, or a
        finished run's results cannot be read. Before any run.
      SweepError: at the end, where runs have failed; the text names them.
    """
    require(seeds >= 1, "seeds", "at least 1", seeds)
    require_local(workdir, "workdir", _LOCAL)
    # Resolved, since runs refer to others of the sweep by it.
    root = pathlib.Path(workdir or experiment.folder(scale)).expanduser().resolve()
    console = console or Console(quiet=not hosts.is_first())
    about = {
        "experiment": str(experiment.path),
        "scale": scale,
        "seeds": seeds,
        "folder": str(root),
    }
    _refuse_other_sweep(root, about)
    tasks = plan(experiment, root, scale, seeds)
    part = _part(experiment, tasks, variants, times)
    # The report is of all runs, also of those that are not trained now.
    for task in tasks:
        check(task)
        for run in task.before:
            refuse_other(run.folder, identify_planned(run))
    _refuse_other_runs(root, tasks, finished_runs(experiment, root, scale))
    for task in part:
        check_weights(task)
    if hosts.is_first():
        _make(root, about)
    hosts.wait_for_all("made the folder of the sweep")
    # Variants that differ in numbers, and all durations of one, are the same program.
    with cache_programs():
        failures = _run_all(part, console)
    if hosts.is_first():
        write_sweep_report(root, experiment)
        console.print(f"report: {root / 'report.md'}", highlight=False, soft_wrap=True)
    if failures:
        runs = "run" if len(failures) == 1 else "runs"
        raise SweepError("\n  ".join([f"{len(failures)} {runs} failed:", *failures]))
    return root


def _part(
    experiment: Experiment,
    tasks: list[Task],
    variants: Collection[str],
    times: Collection[int],
) -> list[Task]:
    """The tasks to train now. All are planned, so that a part uses the teachers of the
    whole."""
    planned = tuple(dict.fromkeys(task.times for task in tasks))
    for name in variants:
        require_known(name, experiment.variants, "variants")
    for number in times:
        require(number in planned, "times", f"some of {planned}", tuple(times))
    return [
        task
        for task in tasks
        if task.variant in (variants or experiment.variants)
        and task.times in (times or planned)
    ]


def _make(root: pathlib.Path, about: dict[str, Any]) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"workdir: expected a folder, got {root}: {error.strerror}"
        raise RunFolderError(text) from error
    if is_packed(root):
        unpack(root)
    runlog.write_json(root / "sweep.json", about)


def report_sweep(folder: str | pathlib.Path, out: str | pathlib.Path = "") -> str:
    """Write the report of a sweep, and return the Markdown.

    Args:
      folder: that of a sweep, finished or not, or one with its `records.jsonl`.
      out: the folder of the report; by default the first one.

    Raises:
      ConfigError: the experiment's file is missing or invalid.
      RunFolderError: the folder is not a sweep's, or its runs have other configs than
        those of the file.
    """
    root = pathlib.Path(folder).expanduser().resolve()
    about = read_sweep(root)
    experiment = load_experiment(about["experiment"])
    records = finished_runs(experiment, root, about["scale"])
    # Runs refer to others by the sweep's first folder, which may have moved since.
    first = pathlib.Path(about["folder"])
    tasks = plan(experiment, first, about["scale"], about["seeds"])
    _refuse_other_runs(root, tasks, records)
    return write_sweep_report(root, experiment, out)


def _refuse_other_runs(root: pathlib.Path, tasks: list[Task], records: Runs) -> None:
    """Refuse runs of other configs than planned, finished or not."""
    for task in tasks:
        record = records.get((task.variant, task.times))
        old = parse_identity(record.config) if record else None
        refuse_other(root / task.run.folder.name, identify_planned(task.run), old)


def _refuse_other_sweep(root: pathlib.Path, about: dict[str, Any]) -> None:
    """Refuse the folder of another sweep. The file may have moved with its folder."""
    if not is_sweep(root):
        return
    before = read_sweep(root)
    for name in ("experiment", "scale", "seeds"):
        old, new = before[name], about[name]
        if name == "experiment":
            old, new = ("/".join(pathlib.Path(x).parts[-2:]) for x in (old, new))
        if old != new:
            text = f"{name}: folder has {old}, this sweep has {new}"
            raise RunFolderError(f"workdir: {root} holds another sweep: {text}")


def _run_all(tasks: list[Task], console: Console) -> list[str]:
    """Train the unfinished runs; a line for each failure."""
    left = [task for task in tasks if not task.finished]
    console.print(f"{len(tasks)} runs, {len(tasks) - len(left)} finished")
    failures: list[str] = []
    busy: list[str] = []
    done: list[tuple[int, float]] = []
    for number, task in enumerate(left, start=1):
        ahead = time_left(done, [other.run.steps for other in left[number - 1 :]])
        text = f"[{number}/{len(left)}] {task.run.name}, {task.run.steps} steps"
        console.print(f"{text}{ahead}", style="bold", highlight=False)
        try:
            seconds = _run_one(task, console)
        except Interrupted:
            raise
        except BusyFolderError:
            busy.append(task.run.name)
            console.print("another process is training it", highlight=False)
        except Exception as error:
            failures.append(f"{task.run.name}: {error}")
            text = f"failed: {failures[-1]}"
            console.print(text, style="red", highlight=False, markup=False)
        else:
            done.append((task.run.steps, seconds))
        # Some hundred programs are more than a process has memory maps for.
        jax.clear_caches()
    if busy:
        text = f"left to other processes: {', '.join(busy)}"
        console.print(text, highlight=False)
    return failures


def time_left(done: list[tuple[int, float]], ahead: list[int]) -> str:
    """The remaining time of runs of so many steps, from (steps, seconds) of others.

    A run costs a start and its steps, fitted once there are two lengths. Before that,
    all of the time is counted as steps, which gives an upper bound.
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


def _run_one(task: Task, console: Console) -> float:
    """The seconds of one run, without those of the runs that it needs first."""
    run = task.run
    with lock_folder(run.folder):
        for first in task.before:
            _train_first(first, console)
        start = time.monotonic()
        _train(run, console)
        return time.monotonic() - start


def _train_first(run: Run, console: Console) -> None:
    """Train a run that others need, or wait for the process that does."""
    try:
        _train(run, console)
    except BusyFolderError:
        console.print(f"{run.name}: waiting for the process that trains it")
        with lock_folder(run.folder, wait=True):
            _train(run, console)


def _train(run: Run, console: Console) -> None:
    """Train a run, with a teacher where it has one, on cached targets where it says."""
    if run.teacher is None:
        train(run, console=console)
        return
    # Another process may have finished it since the sweep began.
    if run.cache.path and not runlog.is_finished(run.folder):
        cache_targets(run, console=console)
    distill(run, console=console)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(minutes, 1):.0f} min"
