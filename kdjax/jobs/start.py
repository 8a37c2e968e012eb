"""Start of every job: checks, data, and the lock of the run folder."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from filelock import BaseFileLock, FileLock, Timeout
from jax.sharding import Mesh
from rich.console import Console

from kdjax import setup
from kdjax.config import Run, require, trained_first
from kdjax.core import hosts, runlog
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import Model
from kdjax.data.datasets import Splits
from kdjax.data.source import Source, check_labeled
from kdjax.setup.identity import (
    Identity,
    fingerprint_data,
    fingerprint_student,
    make_identity,
    open_folder,
    refuse_other,
)
from kdjax.setup.trained import starting_variables
from kdjax.train.trackers import check_installed


class Job(NamedTuple):
    """Inputs that the runs of one job share.

    overrides: a line for each object passed from Python.
    content: fingerprints of the data, and of the teacher once it has values.
    """

    data: dict[str, Source]
    splits: Splits | None
    student: Model | None
    overrides: dict[str, str]
    content: dict[str, str]
    console: Console


def start(run: Run, splits, student, teacher, console) -> Job:
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
    _check_replaced(run, teacher)
    names = ("train", "validation", "test")
    data = {name: setup.load_source(run, name, splits) for name in names}
    train = data["train"]
    for name in names[1:]:
        check_labeled(data[name], f"data.{name}")
        shape, want = data[name].shape, train.shape
        require(shape == want, f"data.{name}", f"images as in data.train {want}", shape)
        highest = int(data[name].labels.max())
        want = f"labels below {train.classes} (the classes of data.train)"
        require(highest < train.classes, f"data.{name}", want, highest)
    passed = {"splits": splits, "model": student, "teacher": teacher}
    overrides = {
        name: f"a {name} of the caller's" for name, x in passed.items() if x is not None
    }
    console = console or Console(quiet=not hosts.is_first())
    return Job(data, splits, student, overrides, fingerprint_data(data), console)


def _check_replaced(run: Run, teacher: Any) -> None:
    """Refuse a teacher from Python where the config names another one.

    It stands for the one of kind train.
    """
    if teacher is not None and run.teacher is not None:
        expected = "train, for a teacher passed from Python"
        ok = trained_first(run.teacher) is not None
        require(ok, "teacher.kind", expected, run.teacher.kind)


def is_finished(folder: pathlib.Path, run: Run, job: Job, mesh: Mesh) -> bool:
    """True for a folder with this run, finished. Refuses the folder of another run."""
    refuse_other(folder, make_identity(run, job.overrides, job.content))
    if not runlog.is_finished(folder):
        return False
    # Nothing more is set up for a finished run, so its model is compared here.
    train, start = job.data["train"], None
    if job.student is None:
        start, _ = starting_variables(run, train.classes, train.shape[-1], mesh)
    content = fingerprint_student(run, train, job.student, start)
    refuse_other(folder, Identity(content=content))
    return True


class BusyFolderError(RunFolderError):
    """Another process trains in a run folder."""


@contextlib.contextmanager
def lock_folder(
    folder: pathlib.Path, identity: Identity | None = None, *, wait: bool = False
) -> Iterator[None]:
    """Lock a run folder for this process, and for those that form one run with it.

    The folder is created if there is none. A process that dies releases its lock.

    Args:
      identity: the run to open the folder for, before it is locked.
      wait: wait for another process to release its lock.

    Raises:
      BusyFolderError: another process has the lock, and `wait` is false.
      RunFolderError: the folder is another run's, or cannot be written.
    """
    if identity is not None:
        hosts.wait_for_all(f"checked {folder}")
        if hosts.is_first():
            open_folder(folder, identity)
        hosts.wait_for_all(f"opened {folder}")
    lock = None
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / runlog.LOCK, is_singleton=True)
    while not hosts.agree(lock is None or _acquire(lock)):
        if not wait:
            text = f"workdir: {folder}: another process is training in it"
            raise BusyFolderError(text)
        time.sleep(1)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
