"""Training a model, and distilling a student with its teacher and baselines."""

import dataclasses
import functools
import pathlib
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.config import (
    Ensemble,
    FromRun,
    MovingAverage,
    Run,
    TeacherConfig,
    TrainFirst,
    beneath,
    require,
    trained_first,
)
from kdjax.core import hosts, runlog
from kdjax.core.types import Model
from kdjax.data.datasets import Splits
from kdjax.data.source import Source, check_same_names
from kdjax.jobs.measuring import check_teacher
from kdjax.jobs.start import Job, load_data, lock_folder, open_job
from kdjax.jobs.trainer import Training, train_one
from kdjax.setup.identity import identify, make_identity, refuse_other
from kdjax.train.progress import stage


def train(
    run: Run,
    *,
    splits: Splits | None = None,
    model: Model | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Train one model by itself, on labels. Resumes an interrupted run.

    Args:
      run: what to train; all its terms compare with labels.
      splits: arrays by split, in place of the data set that `run.data` names.
      model: in place of the one that `run.model` names.

    Returns:
      The run folder.
    """
    run = dataclasses.replace(run, teacher=None, baselines=())
    job, trainings = prepare(open_job(run, splits, model, None, console))
    for training in trainings:
        train_one(training, job.console)
    if hosts.is_first():
        _print_report(job, [run.folder])
    return run.folder


def distill(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Distill a student, and train its teacher and label-only baselines where needed.

    Each training has a run folder: WORKDIR for the student, WORKDIR/labels and
    WORKDIR/labels_mixup for the baselines, and WORKDIR/teacher for a teacher that is
    trained first. Resumes an interrupted run.

    Args:
      run: the config of the student, with its teacher and baselines.
      splits: arrays by split, in place of the data set that `run.data` names.
      student: a model from Python, in place of the one that `run.model` names.
      teacher: `(model, variables)` from Python, in place of the teacher of kind train
        in `run.teacher`; its images follow that teacher's `model`.

    Returns:
      The run folder, with `report.md` and `curves.png` over all trainings.
    """
    expected = "a teacher to distill from"
    require(run.teacher is not None, "teacher", expected, run.teacher)
    job, trainings = prepare(open_job(run, splits, student, teacher, console))
    teacher_model = trainings[-1].teacher
    begun = runlog.contains_run(run.folder)
    if teacher_model is not None and not trainings[0].section and not begun:
        with stage(job.console, "measuring the teacher"):
            check_teacher(teacher_model, job)
    with lock_folder(run.folder, trainings[-1].identity):
        for training in trainings:
            train_one(training, job.console)
    if hosts.is_first():
        _report(job, trainings)
    return run.folder


def prepare(outline: Job) -> tuple[Job, list[Training]]:
    """A job with its data and its trainings, from its outline.

    All trainings are checked before images are decoded, and before the first of them
    writes anything.
    """
    train, begun = outline.data["train"], runlog.contains_run(outline.run.folder)
    with stage(outline.console, "loading models"):
        if not begun:
            # The student alone first: a teacher's step takes longer to trace.
            shape = train.classes, train.shape[-1]
            setup.trace_model(outline.run, *shape, outline.student)
        trainings = plan_trainings(outline)
    with stage(outline.console, "checking that all parts fit together"):
        check_trainings(trainings)
    job = load_data(outline)
    trainings = [_with_data(training, job) for training in trainings]
    for training in trainings:
        with _errors_of(training):
            refuse_other(training.run.folder, training.identity)
            if training.run.cache.path:
                _check_fit(training)
    return job, trainings


def plan_trainings(job: Job) -> list[Training]:
    """The trainings of a job in order: teacher, baselines, student.

    The teacher is among them only where the config has it trained first. Those of an
    outline have no fingerprints of their inputs yet.
    """
    run, train = job.run, job.data["train"]
    load = functools.partial(setup.load_teacher, run, train, job.mesh, job.teacher)
    trains_teacher = job.teacher is None and trained_first(run.teacher) is not None
    teacher = load(trained=not trains_teacher)
    initial = setup.load_initial(run, train, job.mesh, job.student)
    trainings = [_teacher_training(job)] if trains_teacher else []
    for each in (*(baseline_run(run, name) for name in run.baselines), run):
        training = Training(
            run=each,
            data=job.data,
            mesh=job.mesh,
            overrides=job.overrides,
            student=job.student,
            initial=initial,
            teacher=teacher,
            load_teacher=load if trains_teacher else lambda: teacher,
        )
        trainings.append(training)
    if job.is_outline:
        return [_without_fingerprints(training) for training in trainings]
    return [_with_identity(training) for training in trainings]


def _teacher_training(job: Job) -> Training:
    """The training of a teacher, on labels of its own split."""
    members = configs.members_of(job.run.teacher)
    section = next(field for field, x in members if isinstance(x, TrainFirst))
    run = teacher_run(job.run, setup.teacher_folder(job.run))
    overrides = {k: v for k, v in job.overrides.items() if k == "splits"}
    data = _teacher_data(run, section, job)
    return Training(run, data, job.mesh, overrides, section=section)


def _teacher_data(run: Run, section: str, job: Job) -> dict[str, Source]:
    """The examples of a teacher that is trained first, on a split of its own."""
    field, outline = f"{section}.train", job.is_outline
    source = setup.load_source(run, "train", job.own, field, outline=outline)
    expected = "the classes of data.train in the same order"
    check_same_names(source.names, job.data["train"].names, field, expected)
    data = {**job.data, "train": source}
    # Of the student's own split it was said before.
    if not outline and run.data.train != job.run.data.train:
        setup.warn_of_missing_classes(run, data, {"train": field})
    return data


def _with_data(training: Training, job: Job) -> Training:
    """A training of an outline with the data of its job."""
    data = job.data
    if training.section:
        data = _teacher_data(training.run, training.section, job)
    return _with_identity(training._replace(data=data))


def _without_fingerprints(training: Training) -> Training:
    identity = make_identity(training.run, training.overrides)
    return training._replace(identity=identity)


def _with_identity(training: Training) -> Training:
    identity = identify(
        training.run,
        training.data,
        student=training.student,
        teacher=training.teacher,
        start=training.initial.variables,
        overrides=training.overrides,
    )
    return training._replace(identity=identity)


def teacher_run(run: Run, folder: pathlib.Path) -> Run:
    """The run that trains the teacher of `run` on labels, in a folder of its own."""
    config = trained_first(run.teacher)
    kind = run.teacher and run.teacher.kind
    require(config is not None, "teacher.kind", "train", kind)
    assert config is not None
    return configs.labels_only(
        run,
        name="teacher",
        workdir=str(folder),
        data=dataclasses.replace(run.data, train=config.train, train_name=""),
        model=config.model,
        teacher=None,
        views=config.views,
        optim=config.optim,
        steps=config.steps,
    )


def baseline_run(run: Run, name: str) -> Run:
    """A label-only run with the same model, schedule and number of views as `run`.

    name: "labels" or "labels_mixup", also that of its folder.
    """
    mode = "function_matching" if name == "labels_mixup" else "consistent"
    return configs.labels_only(
        run,
        name=name,
        workdir=str(run.folder / name),
        teacher=_live_teacher(run),
        views=dataclasses.replace(run.views, mode=mode),
    )


def _live_teacher(run: Run) -> TeacherConfig | None:
    """The teacher with which a baseline of `run` is compared, without a cache."""
    teacher = run.teacher
    if teacher is None or isinstance(teacher, MovingAverage):
        return None
    teacher = configs.replace_cache(teacher, configs.Cache())
    if isinstance(teacher, Ensemble) and teacher.mean == "probabilities":
        # A baseline has no loss whose temperature it could be.
        teacher = dataclasses.replace(teacher, mean_at=run.mean_at)
    return configs.replace_trained(teacher, "../teacher")


def check_trainings(trainings: list[Training]) -> None:
    """Refuse folders of other runs, and configs whose parts do not fit together.

    Traces a step of each run that has not begun; computes and writes nothing. A run
    that has begun passed with the same config.
    """
    for training in trainings:
        with _errors_of(training):
            refuse_other(training.run.folder, training.identity)
            # A cache is compared with the data.
            if not training.run.cache.path:
                _check_fit(training)


def _errors_of(training: Training) -> AbstractContextManager[None]:
    """Errors of a teacher's training name the fields of its section."""
    fields = {name: name for name in ("model", "optim", "views", "steps")}
    return beneath(training.section, fields if training.section else {})


def _check_fit(training: Training) -> None:
    if runlog.contains_run(training.run.folder):
        return
    setup.check_fit(
        training.run,
        train=training.data["train"],
        student=training.student,
        teacher=training.teacher,
        initial=training.initial,
    )


def _report(job: Job, trainings: list[Training]) -> None:
    """Write the report over all trainings, and that of the teacher's run."""
    root = job.run.folder
    folders = [training.run.folder for training in trainings]
    if isinstance(job.run.teacher, FromRun):
        folders.insert(0, setup.teacher_folder(job.run))
    reports.write_report(folders, root)
    _print_report(job, folders)


def _print_report(job: Job, folders: list[pathlib.Path]) -> None:
    """Print the table over some runs, and the path of the report."""
    job.console.print(reports.terminal_table(reports.collect(folders)))
    text = f"report: {job.run.folder / 'report.md'}"
    job.console.print(text, highlight=False, soft_wrap=True)
