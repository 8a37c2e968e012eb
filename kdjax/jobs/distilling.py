"""Training one model, and distilling a student with all that belongs to it."""

import dataclasses
import pathlib
from typing import Any

from rich.console import Console

from kdjax import reports, setup
from kdjax.config import FromRun, Run, require, trained_first
from kdjax.core import hosts
from kdjax.core.types import Model
from kdjax.data.datasets import Splits
from kdjax.jobs.start import is_finished, lock_folder, start
from kdjax.jobs.teachers import (
    look_at_teacher,
    prepare_teacher,
    teacher_folder,
    teacher_loader,
)
from kdjax.jobs.training import train_one
from kdjax.setup.identity import fingerprint_teacher, make_identity
from kdjax.train import sharding


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
    job = start(run, splits, model, None, console)
    folder = run.folder
    mesh = sharding.make_mesh(run.compute, run.batch)
    if not is_finished(folder, run, job, mesh):
        setup.check_fit(run, train=job.data["train"], student=model, teacher=None)
    return train_one(run, folder, job, lambda: None)


def distill(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Distil a student, with its teacher and its label-only baselines beside it.

    A teacher of kind train is trained first. Every part is a run
    folder of its own: WORKDIR/teacher, WORKDIR/labels, ... and WORKDIR for the student.

    Args:
      run: what to do.
      splits: arrays by split, in place of the data set that `run.data` names.
      student: a model of the user's, in place of the one that `run.model` names.
      teacher: `(model, variables)` of the user's, in place of the teacher of kind train
        in `run.teacher`, whose `model.resolution` and `model.normalization` it has.

    Returns:
      The run folder, with `report.md` and `curves.png` over all parts.
    """
    job = start(run, splits, student, teacher, console)
    require(run.teacher is not None, "teacher", "a teacher to distil from", run.teacher)
    assert run.teacher is not None
    root = run.folder
    runs = {
        root / name: setup.baseline_run(run, name, root / name)
        for name in run.baselines
    }
    runs[root] = run
    folder = teacher_folder(run, root)
    mesh = sharding.make_mesh(run.compute, run.batch)
    source = job.data["train"]
    load = teacher_loader(run, teacher, root, mesh, source)
    teacher_run, teacher_job = None, job
    if teacher is None and trained_first(run.teacher) is not None:
        teacher_run, teacher_job = prepare_teacher(run, folder, mesh, job)
        untrained = setup.model_of(teacher_run, source.classes, source.shape[-1], None)
        bound = teacher_loader(run, None, root, mesh, source, untrained)()
    else:
        bound = load()
    job = job._replace(content={**job.content, **fingerprint_teacher(bound)})
    # Everything is checked before anything is trained or written.
    for path, each in runs.items():
        if not is_finished(path, each, job, mesh):
            setup.check_fit(each, train=source, student=student, teacher=bound)
    if teacher_run is None and bound is not None:
        look_at_teacher(run, bound, mesh, job)
    with lock_folder(root, make_identity(run, job.overrides, job.content)):
        if teacher_run is not None:
            train_one(teacher_run, folder, teacher_job, lambda: None)
        for path, each in runs.items():
            train_one(each, path, job, load)
    if hosts.is_first():
        has_folder = teacher_run is not None or isinstance(run.teacher, FromRun)
        shown = [*([folder] if has_folder else []), *runs]
        reports.write_report(shown, root)
        job.console.print(reports.terminal_table(reports.collect(shown)))
        text = f"report: {root / 'report.md'}"
        job.console.print(text, highlight=False, soft_wrap=True)
    return root
