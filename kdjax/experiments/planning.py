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
    beneath,
    members_of,
    name_stages,
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
    """One run of a sweep, and the runs that it needs first, in order."""

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
    planned = _Planned(experiment, root, scale, seeds, {})
    return [
        planned.task(variant, times)
        for times in experiment.times(scale)
        for variant in experiment.variants
    ]


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A sweep while it is planned.

    shared: teachers and stages that are trained once, by their folders.
    """

    experiment: Experiment
    root: pathlib.Path
    scale: str
    seeds: int
    shared: dict[str, Run]

    def task(self, variant: str, times: int) -> Task:
        """A variant at a duration, and what it needs first."""
        folders: dict[str, str] = {}
        before: list[Run] = []
        for name, run in self.experiment.earlier_stages(variant, self.scale).items():
            with beneath(f"{variant}: runs.{name}"):
                run = name_stages(run, folders)
            run, first = self._complete(dataclasses.replace(run, seeds=self.seeds))
            run = self._share(run, "stage")
            folders[name] = str(run.folder)
            before += [*first, run]
        run = self.experiment.run(variant, self.scale, times)
        folder = self.root / run_folder(variant, times)
        with beneath(f"{variant}"):
            run = name_stages(run, folders)
        run = dataclasses.replace(run, workdir=str(folder), seeds=self.seeds)
        run, first = self._complete(run)
        return Task(variant, times, run, (*before, *first))

    def _complete(self, run: Run) -> tuple[Run, list[Run]]:
        """A run with the folders of its teacher and pretraining runs, and these."""
        pretraining = [
            dataclasses.replace(
                self.experiment.pretraining_run(name, self.scale),
                workdir=str(self.root / name),
                seeds=self.seeds,
                teacher=None,
                baselines=(),
            )
            for name in sorted(refs_in(run))
        ]
        run, teacher = self._with_teacher(resolve_refs(run, self.root))
        return run, teacher + pretraining

    def _with_teacher(self, run: Run) -> tuple[Run, list[Run]]:
        """A run, and that of its teacher where that is trained first and shared."""
        teacher = run.teacher
        if teacher is None:
            return run, []
        if run.cache.path:
            cache = dataclasses.replace(run.cache, path=f"{run.workdir}-targets")
            teacher = replace_cache(teacher, cache)
        before = []
        if trained_first(teacher) is not None:
            pace = {"evaluate_every": 100, "checkpoint_every": 200, "log_every": 100}
            training = dataclasses.replace(teacher_run(run, self.root), **pace)
            before = [self._share(training, "teacher")]
            teacher = replace_trained(teacher, f"../{before[0].folder.name}")
        return dataclasses.replace(run, teacher=teacher), before

    def _share(self, run: Run, kind: str) -> Run:
        """The run in a folder of its own: its existing one, or the first free one.

        Names stay as they are when a variant with another teacher is added.
        """
        title, run = run.name, dataclasses.replace(run, workdir="", name="")
        same = [name for name, other in self.shared.items() if other == run]
        folders = self.root.glob(f"{kind}-*/config.json")
        existing = [path.parent.name for path in sorted(folders)]
        left = [name for name in existing if name not in self.shared]
        matching = [name for name in left if _has_config(self.root / name, run)]
        numbered = (f"{kind}-{number}" for number in itertools.count())
        taken = {*self.shared, *existing}
        free = (name for name in numbered if name not in taken)
        name = (same or matching or [next(free)])[0]
        self.shared[name] = run
        return dataclasses.replace(run, workdir=str(self.root / name), name=title)


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
