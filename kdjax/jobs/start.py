"""Start of every job: checks of its arguments, its data, and the run folder's lock."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from filelock import BaseFileLock, FileLock, Timeout
from jax.sharding import Mesh
from rich.console import Console

from kdjax import config as configs
from kdjax import setup
from kdjax.config import ConfigError, Run, require, require_type, trained_first
from kdjax.core import agreement, bucket, environment, hosts, runlog, timeline
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import Model
from kdjax.data.datasets import Splits
from kdjax.data.source import Source, check_labeled
from kdjax.setup.identity import Identity, open_folder
from kdjax.train import sharding
from kdjax.train.progress import stage

SPLITS = ("train", "validation", "test")


class Job(NamedTuple):
    """Checked inputs of a job.

    splits, student, teacher: objects passed from Python, in place of the config's.
    own: the splits of a data set in memory; None for one of files.
    data: examples by split: "train", "validation", "test".
    mesh: the devices of its trainings.
    is_outline: images and labels are not read yet; their shapes and classes are right.
    """

    run: Run
    splits: Splits | None
    student: Model | None
    teacher: tuple[Model, Any] | None
    own: Splits | None
    data: dict[str, Source]
    mesh: Mesh
    console: Console
    is_outline: bool = False

    @property
    def overrides(self) -> dict[str, str]:
        """A line for each object passed from Python."""
        passed = {"splits": self.splits, "model": self.student, "teacher": self.teacher}
        present = [name for name, x in passed.items() if x is not None]
        return {name: f"a {name} of the caller's" for name in present}


def check_run(run: Run) -> None:
    """Refuse what is no `Run`, such as the name of a preset or a folder."""
    require_type(run, Run, "run", "a kdjax.Run")


def open_job(
    run: Run,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> Job:
    """Check the config and the arguments of a job: its outline.

    Of the data only headers are read. Nothing is traced, computed or written.
    """
    timeline.begin()
    check_run(run)
    run.check()
    _compare_processes(run)
    run = dataclasses.replace(run, workdir=str(bucket.open_folder(run.folder)))
    hosts.wait_for_all("read the folder")
    runlog.refuse_nested(run.folder)
    _check_passed(run, student, teacher)
    console = console or Console(quiet=not hosts.is_first())
    setup.check_names(run, student, teacher)
    run, completed = setup.complete_models(run)
    for line in completed:
        console.print(line, highlight=False, soft_wrap=True)
    mesh = sharding.make_mesh(run.compute, run.batch)
    own = setup.call_own(run) if splits is None else splits
    data = {x: setup.load_source(run, x, own, outline=True) for x in SPLITS}
    _check_shapes(data)
    return Job(run, splits, student, teacher, own, data, mesh, console, True)


def load_data(job: Job) -> Job:
    """A job with the data of its outline."""
    run = job.run
    with stage(job.console, "reading data"):
        data = {name: setup.load_source(run, name, job.own) for name in SPLITS}
    _check_labels(data)
    setup.warn_of_missing_classes(run, data)
    setup.warn_of_gaps(run, data)
    setup.warn_of_equal_images(data["train"])
    setup.warn_of_shared_images(run, data)
    return job._replace(data=data, is_outline=False)


def _compare_processes(run: Run) -> None:
    """Refuse processes of other devices, configs or versions, before they wait."""
    if jax.process_count() == 1:
        return
    devices = agreement.find_odd_devices()
    _refuse_odd({i: f"with {text}" for i, text in devices.items()}, "devices")
    fields = _leaves(configs.to_dict(run))
    # Paths may differ from host to host. Images are compared once they are read.
    for name in ("workdir", "data.data_dir"):
        fields.pop(name, None)
    packages = {f"version of {k}": v for k, v in environment.versions().items()}
    code = {"source files of kdjax": environment.code_digest()}
    require_same({**fields, **packages, **code})


def require_same(values: Mapping[str, str]) -> None:
    """Refuse, on all processes, a run of which one has another of these values."""
    odd = agreement.find_odd(values)
    texts = {i: f"with other {', '.join(names[:4])}" for i, names in odd.items()}
    _refuse_odd(texts, "config, code and data")


def _refuse_odd(odd: Mapping[int, str], what: str) -> None:
    count = jax.process_count()
    shown = ", ".join(f"process {i} of {count} {text}" for i, text in odd.items())
    field, expected = "compute.several_processes", f"the same {what} everywhere"
    if odd:
        raise ConfigError(field, expected, shown=shown)


def _leaves(values: Mapping[str, Any], at: str = "") -> dict[str, str]:
    """The fields of nested plain values, by their dotted names."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{at}{name}.")
        else:
            found[f"{at}{name}"] = repr(value)
    return found


def _check_passed(run: Run, student: Any, teacher: Any) -> None:
    """Refuse objects that are no models, and a teacher besides the config's."""
    expected = "a kdjax Model (from_linen, from_nnx or from_function make one)"
    ok = student is None or isinstance(student, Model)
    require(ok, "student", expected, type(student).__name__)
    if teacher is None:
        return
    pair = isinstance(teacher, tuple) and len(teacher) == 2
    ok = pair and isinstance(teacher[0], Model)
    expected = f"a pair of {expected} and its variables"
    require(ok, "teacher", expected, type(teacher).__name__)
    if run.teacher is not None:
        ok = trained_first(run.teacher) is not None
        expected = "train, for a teacher passed from Python"
        require(ok, "teacher.kind", expected, run.teacher.kind)


def _check_shapes(data: dict[str, Source]) -> None:
    """Refuse validation and test splits of other images than `train`."""
    train = data["train"]
    for name in ("validation", "test"):
        expected = f"images as in data.train {train.shape}"
        ok = data[name].shape == train.shape
        require(ok, f"data.{name}", expected, data[name].shape)


def _check_labels(data: dict[str, Source]) -> None:
    """Refuse validation and test splits of other classes than `train`."""
    train = data["train"]
    for name in ("validation", "test"):
        source, field = data[name], f"data.{name}"
        check_labeled(source, field)
        highest = int(source.labels.max())
        expected = f"labels below {train.classes} (the classes of data.train)"
        require(highest < train.classes, field, expected, highest)


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
      ConfigError: the processes that form the run differ in its inputs.
      RunFolderError: the folder is another run's, or cannot be written.
    """
    if identity is not None:
        require_same({f"content of `{k}`": v for k, v in identity.content.items()})
        if hosts.is_first():
            open_folder(folder, identity)
        hosts.wait_for_all("opened the folder")
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
        with bucket.writing(folder):
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
