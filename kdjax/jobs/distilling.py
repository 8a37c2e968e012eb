"""Training a model, and distilling a student with its teacher and baselines."""

import dataclasses
import functools
import pathlib
from contextlib import AbstractContextManager
from typing import Any

import jax
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
from kdjax.core import bucket, hosts, runlog
from kdjax.core.fingerprint import is_abstract
from kdjax.core.types import STUDENT, BoundModel, Model, PyTree
from kdjax.data.datasets import Splits
from kdjax.data.source import Source
from kdjax.jobs.measuring import check_teacher
from kdjax.jobs.start import Job, check_run, load_data, lock_folder, open_job
from kdjax.jobs.trainer import Training, train_one
from kdjax.models import zoo
from kdjax.setup.identity import fingerprint_data, identify, refuse_other
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
    check_run(run)
    run = dataclasses.replace(run, teacher=None, baselines=())
    job, trainings = prepare(open_job(run, splits, model, None, console))
    for training in trainings:
        train_one(training, job.console)
    if hosts.is_first():
        _print_report(job, [job.run.folder])
    return job.run.folder


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
    check_run(run)
    expected = "a teacher to distill from"
    require(run.teacher is not None, "teacher", expected, run.teacher)
    job, trainings = prepare(open_job(run, splits, student, teacher, console))
    teacher_model = trainings[-1].teacher
    is_new = not (trainings[0].section or trainings[-1].begun)
    if teacher_model is not None and is_new:
        with stage(job.console, "measuring the teacher"):
            check_teacher(teacher_model, job)
    run = job.run
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
    with stage(outline.console, "loading models"):
        trainings = plan_trainings(outline)
    with stage(outline.console, "checking that all parts fit together"):
        check_trainings(trainings)
    job = load_data(outline)
    trainings = [_with_data(training, job) for training in trainings]
    check_trainings(trainings, has_data=True)
    check_first_values(trainings)
    return job, trainings


def plan_trainings(job: Job) -> list[Training]:
    """The trainings of a job in order: teacher, baselines, student.

    The teacher is among them only where the config has it trained first. Their
    identities have no fingerprints of the data yet.
    """
    run, train = job.run, job.data["train"]
    # The student first: a teacher takes longer to load.
    shapes = setup.trace_model(run, train.classes, train.shape[-1], job.student)
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
    return [_with_identity(training, shapes.variables) for training in trainings]


def _teacher_training(job: Job) -> Training:
    """The training of a teacher, on labels of its own split."""
    members = configs.members_of(job.run.teacher)
    section = next(field for field, x in members if isinstance(x, TrainFirst))
    run = teacher_run(job.run, setup.teacher_folder(job.run))
    overrides = {k: v for k, v in job.overrides.items() if k == "splits"}
    return Training(
        run=run,
        data=_own_split(run, section, job),
        mesh=job.mesh,
        overrides=overrides,
        section=section,
    )


def _with_data(training: Training, job: Job) -> Training:
    """A training of an outline with the data of its job, and their fingerprints."""
    run, section, data = training.run, training.section, job.data
    if section:
        data = _own_split(run, section, job)
        # Of the student's own split it was said before.
        student, fields = job.run.data, {"train": f"{section}.train"}
        if run.data.train != student.train:
            setup.warn_of_missing_classes(run, data, fields)
        if student.train_name or run.data.train != student.train:
            setup.warn_of_shared_images(run, data, fields)
    identity = training.identity.add(fingerprint_data(data))
    return training._replace(data=data, identity=identity)


def _with_identity(training: Training, shapes: PyTree) -> Training:
    """A training with its identity. shapes: of the variables of its student."""
    identity = identify(
        training.run,
        student=None if training.student is None else shapes,
        teacher=training.teacher,
        start={name: x.variables for name, x in training.initial.items()},
        overrides=training.overrides,
    )
    return training._replace(identity=identity)


def _own_split(run: Run, section: str, job: Job) -> dict[str, Source]:
    """The data of a teacher that is trained first, with a training split of its own."""
    field, names = f"{section}.train", job.data["train"].names
    options = {"outline": job.is_outline, "class_names": names}
    train = setup.load_source(run, "train", job.own, field, **options)
    return {**job.data, "train": train}


def teacher_run(run: Run, folder: pathlib.Path) -> Run:
    """The run that trains the teacher of `run` on labels, in a folder of its own.

    It is trained in float32, so that runs of any precision share one teacher.
    """
    config = trained_first(run.teacher)
    kind = run.teacher and run.teacher.kind
    require(config is not None, "teacher.kind", "train", kind)
    assert config is not None
    return configs.labels_only(
        run,
        name="teacher",
        workdir=str(folder),
        data=dataclasses.replace(run.data, train=config.train, train_name=""),
        model=config.model.filled({}),
        teacher=None,
        views=config.views,
        optim=config.optim,
        compute=dataclasses.replace(run.compute, precision="float32"),
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


def check_trainings(trainings: list[Training], *, has_data: bool = False) -> None:
    """Refuse folders of other runs, and configs whose parts do not fit together.

    Traces a step of each run that has not begun; computes and writes nothing. A run
    that has begun passed with the same config. One that reads a cache is traced only
    when it `has_data`, with which its cache is compared.
    """
    for training in trainings:
        run = training.run
        with _errors_of(training):
            refuse_other(run.folder, training.identity)
            if bool(run.cache.path) == has_data and not training.begun:
                setup.check_fit(
                    run,
                    train=training.data["train"],
                    student=training.student,
                    teacher=training.teacher,
                    initial=training.initial,
                )


def check_first_values(trainings: list[Training]) -> None:
    """Refuse models and losses of the user's own that begin with NaN or infinity.

    Losses of the run that trains first are left to its training.
    """
    if jax.process_count() > 1:
        return
    *earlier, last = trainings
    # Baselines train the model of the student.
    for training in (*earlier[:1], last):
        if training.section or training is last:
            _check_models(training)
    waits = not all(runlog.is_finished(x.run.folder) for x in earlier)
    is_new = not (last.begun or last.run.cache.path)
    if waits and is_new and setup.has_own_losses(last.run):
        setup.check_losses(
            last.run,
            train=last.data["train"],
            student=last.student,
            teacher=last.teacher,
            initial=last.initial,
        )


def _check_models(training: Training) -> None:
    """Check the outputs of a training's student and teacher, if they are of the user's
    own and the training is new."""
    if training.begun:
        return
    run, train = training.run, training.data["train"]
    crop, teacher = run.views.evaluation_crop, training.teacher
    if training.student is not None or ":" in run.model.name:
        model = training.student or zoo.make_model(run.model, train.classes)
        start = training.initial.get(STUDENT, setup.InitialVariables())
        student = BoundModel(model, *start, run.model.resolution)
        prefix = f"{training.section}." if training.section else ""
        setup.check_outputs(student, train, f"{prefix}model", crop=crop)
    own = "teacher" in training.overrides or (teacher is not None and any(teacher.code))
    if teacher is not None and own and not is_abstract(teacher.variables):
        setup.check_outputs(teacher, train, "teacher", crop=crop, is_trained=True)


def _errors_of(training: Training) -> AbstractContextManager[None]:
    """Errors of a teacher's training name the fields of its section."""
    fields = {name: name for name in ("model", "optim", "views", "steps")}
    return beneath(training.section, fields if training.section else {})


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
    text = bucket.with_urls(f"report: {job.run.folder / 'report.md'}")
    job.console.print(text, highlight=False, soft_wrap=True)
