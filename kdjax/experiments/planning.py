"""The plan of a sweep: its runs in order, and the runs that each one needs first."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from kdjax.config import (
    ConfigError,
    FromRun,
    ModelConfig,
    Run,
    members_of,
    replace_cache,
    replace_trained,
    trained_first,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.experiments.experiment import Experiment, run_folder
from kdjax.experiments.refs import refs_in, resolve_refs
from kdjax.jobs.distilling import teacher_run
from kdjax.models import weights, zoo
from kdjax.setup.identity import identify_planned, refuse_other


class Task(NamedTuple):
    """One run of a sweep, and the runs on labels that it needs first."""

    variant: str
    times: int
    run: Run
    before: tuple[Run, ...]

    @property
    def finished(self) -> bool:
        return runlog.is_finished(self.run.folder)


def plan(
    experiment: Experiment, root: pathlib.Path, scale: str, seeds: int
) -> list[Task]:
    """The runs of a sweep, shortest first, so that there are early results."""
    teachers: dict[str, Run] = {}
    tasks = []
    for times in experiment.times(scale):
        for variant in experiment.variants:
            run = experiment.run(variant, scale, times)
            folder = root / run_folder(variant, times)
            run = dataclasses.replace(run, workdir=str(folder), seeds=seeds)
            pretraining = tuple(
                dataclasses.replace(
                    experiment.pretraining_run(name, scale),
                    workdir=str(root / name),
                    seeds=seeds,
                    teacher=None,
                    baselines=(),
                )
                for name in sorted(refs_in(run))
            )
            run, teacher = _with_teacher(resolve_refs(run, root), root, teachers)
            tasks.append(Task(variant, times, run, teacher + pretraining))
    return tasks


def _with_teacher(
    run: Run, root: pathlib.Path, teachers: dict[str, Run]
) -> tuple[Run, tuple[Run, ...]]:
    """A run, and that of its teacher where it is to be trained first and shared."""
    teacher = run.teacher
    if teacher is None:
        return run, ()
    if run.cache.path:
        cache = dataclasses.replace(run.cache, path=f"{run.workdir}-targets")
        teacher = replace_cache(teacher, cache)
    before: tuple[Run, ...] = ()
    if trained_first(teacher) is not None:
        pace = {"evaluate_every": 100, "checkpoint_every": 200, "log_every": 100}
        training = dataclasses.replace(teacher_run(run, root), **pace)
        name = _name_teacher(training, root, teachers)
        before = (dataclasses.replace(training, workdir=str(root / name)),)
        teacher = replace_trained(teacher, f"../{name}")
    return dataclasses.replace(run, teacher=teacher), before


def _name_teacher(training: Run, root: pathlib.Path, teachers: dict[str, Run]) -> str:
    """The folder of a teacher: its existing one, or the first free one. Names stay as
    they are when a variant with another teacher is added."""
    planned = [name for name, other in teachers.items() if other == training]
    existing = [p.parent.name for p in sorted(root.glob("teacher-*/config.json"))]
    left = [n for n in existing if n not in teachers]
    matching = [n for n in left if _has_config(root / n, training)]
    numbered = (f"teacher-{number}" for number in itertools.count())
    free = (n for n in numbered if n not in teachers and n not in existing)
    name = (planned or matching or [next(free)])[0]
    teachers[name] = training
    return name


def _has_config(folder: pathlib.Path, run: Run) -> bool:
    try:
        refuse_other(folder, identify_planned(run))
    except RunFolderError:
        return False
    return True


def check(task: Task) -> None:
    """Raise `ConfigError`, naming the run, for errors in its config."""
    for run in (*task.before, task.run):
        try:
            run.check()
            for field, model in _models(run):
                if model.name:  # Else published weights bring it.
                    zoo.find_maker(model, field)
        except ConfigError as error:
            raise error.at(f"{run.name}: {error.field}") from error


def check_weights(task: Task) -> None:
    """Raise `ConfigError` for missing weights of a run that is not finished."""
    produced = {str(run.folder) for run in task.before}
    for run in () if task.finished else (*task.before, task.run):
        for field, model in _models(run):
            if not model.weights or model.weights in produced:
                continue
            try:
                weights.find(model.weights)
            except weights.WeightsError as error:
                where = f"{run.name}: {field}.weights"
                raise ConfigError(where, reason=str(error)) from error


def _models(run: Run) -> Iterator[tuple[str, ModelConfig]]:
    """The models of a run's config, by their fields."""
    yield "model", run.model
    for field, member in members_of(run.teacher):
        if not isinstance(member, FromRun):
            yield f"{field}.model", member.model
