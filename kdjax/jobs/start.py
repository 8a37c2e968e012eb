"""What every job begins with: checks, data, and a claim on the run folder."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from filelock import BaseFileLock, FileLock, Timeout
from jax.sharding import Mesh
from rich.console import Console

from kdjax import config as configs
from kdjax import setup
from kdjax.config import Run, require
from kdjax.core import hosts, runlog
from kdjax.core.fingerprint import digest, digest_of_shapes, is_abstract
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import BoundModel, Model, PyTree
from kdjax.data.datasets import Splits
from kdjax.data.source import Source, check_labeled, fingerprint
from kdjax.models import zoo
from kdjax.setup.trained import starting_variables
from kdjax.train.trackers import check_installed


class Job(NamedTuple):
    """What the parts of one job share.

    given: a line for each thing that was handed over from Python.
    content: digests of what a run is of: its images, its teacher, its model and what
        that starts from, where the config does not say them.
    """

    data: dict[str, Source]
    splits: Splits | None
    student: Model | None
    given: dict[str, str]
    content: dict[str, str]
    console: Console

    def teaching_on(self, source: Source) -> "Job":
        """The same with other training examples."""
        content = {**self.content, "train": fingerprint(source)}
        data = {**self.data, "train": source}
        return self._replace(data=data, content=content)

    def taught_by(self, teacher: BoundModel | None) -> "Job":
        """The same with a teacher whose variables are known; shapes tell nothing."""
        if teacher is None or is_abstract(teacher):
            return self
        text = " ".join([digest(teacher.variables), *filter(None, teacher.code)])
        return self._replace(content={**self.content, "teacher": text})

    def training(self, run: Run, start: PyTree) -> "Job":
        """The same, knowing the model that a run trains where its config does not say
        it, and the variables that it starts from; None are drawn."""
        found = {} if start is None else {"start": digest(start)}
        found |= setup.code_of(run)
        if self.student is None:
            found["model"] = zoo.code_of(run.model)
        else:
            train = self.data["train"]
            sizes = train.classes, train.shape[-1]
            shapes = setup.model_of(run, *sizes, self.student).variables
            found["model"] = digest_of_shapes(shapes)
        known = {name: text for name, text in found.items() if text}
        return self._replace(content={**self.content, **known})


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
    handed = {"splits": splits, "model": student, "teacher": teacher}
    given = {k: f"a {k} of the caller's" for k, x in handed.items() if x is not None}
    content = {k: fingerprint(x) for k, x in data.items()}
    console = console or Console(quiet=not hosts.is_first())
    return Job(data, splits, student, given, content, console)


def _check_replaced(run: Run, teacher: Any) -> None:
    """Refuse a teacher of the config's beside one from Python, which stands for it."""
    asked = run.teacher
    if teacher is None or asked is None:
        return
    want = "as it is by default beside a teacher handed over from Python"
    fields = {
        "kind": asked.kind,
        "run": asked.run,
        "step": asked.step,
        "model.weights": asked.model.weights,
    }
    for name, value in fields.items():
        require(value in ("model", "", 0), f"teacher.{name}", want, value)


# Fields that do not change what comes out: a run may go on with others.
_FREE = (
    *("workdir", "compute", "trackers"),
    *("data.feed", "data.workers", "data.data_dir"),
    # Told by its content.
    "given.splits",
)


def _free(folder: pathlib.Path, run: Run, job: Job) -> tuple[str, ...]:
    """`_FREE`, where a store lies if there was one before (it says what it is), and
    content that is not known on both sides."""
    if not (folder / "config.json").is_file():
        return _FREE
    config = runlog.read_config(folder)
    before = (config.get("teacher") or {}).get("cache") or {}
    stored = before.get("path") and run.teacher and run.teacher.cache.path
    handed = {*config.get("given", {}), *job.given}
    told = ["given"] if handed <= {"splits"} else []
    known = config.get("content", {})
    unknown = [f"content.{name}" for name in known.keys() ^ job.content.keys()]
    unknown += [] if known and job.content else ["content"]
    return (*_FREE, *(["teacher.cache.path"] if stored else []), *told, *unknown)


def _identity(run: Run, job: Job) -> dict[str, Any]:
    beside = {"given": job.given, "content": job.content}
    return {**configs.to_dict(run), **{k: v for k, v in beside.items() if v}}


def refuse_other(folder: pathlib.Path, run: Run, job: Job) -> None:
    free = _free(folder, run, job)
    runlog.check_folder(folder, _identity(run, job), free, setup.as_effective)


def refuse_other_config(
    folder: pathlib.Path, run: Run, config: Mapping[str, Any] | None = None
) -> None:
    """Refuse a folder of another config; its data and weights are not compared.

    config: that of the folder; by default the one in it, if there is one.
    """
    free = (*_FREE, "teacher.cache.path", "given", "content")
    values = configs.to_dict(run)
    if config is None:
        runlog.check_folder(folder, values, free, setup.as_effective)
    else:
        before, now = setup.as_effective(config), setup.as_effective(values)
        runlog.refuse_differences(folder, before, now, free)


def is_finished(folder: pathlib.Path, run: Run, job: Job, mesh: Mesh) -> bool:
    """Whether the folder holds this very run, and all of it. Refuses another's.

    Also where it is of another model or start, which a run that goes on is asked later,
    with its parts at hand.
    """
    refuse_other(folder, run, job)
    if not runlog.is_finished(folder):
        return False
    start = None
    if job.student is None:
        train = job.data["train"]
        sizes = train.classes, train.shape[-1]
        start, _ = starting_variables(run, *sizes, mesh)
    refuse_other(folder, run, job.training(run, start))
    return True


class BusyFolderError(RunFolderError):
    """Another process trains in a run folder."""


@contextlib.contextmanager
def held(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a run folder to this process and those that form one run with it.

    It is made if there is none; a process that dies lets go of it.

    Raises:
      BusyFolderError: another process has it, and `wait` is false.
    """
    lock = None
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / runlog.LOCK, is_singleton=True)
    while not hosts.agree(lock is None or _take(lock)):
        if not wait:
            text = f"workdir: {folder}: another process is training in it"
            raise BusyFolderError(text)
        time.sleep(1)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _take(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


@contextlib.contextmanager
def claimed(folder: pathlib.Path, run: Run, job: Job) -> Iterator[None]:
    """Make a run's folder, or return to it, and hold it."""
    hosts.wait_for_all(f"checked {folder}")
    if hosts.is_first():
        free = _free(folder, run, job)
        runlog.open_run(folder, _identity(run, job), free, setup.as_effective)
        _complete(folder, job)
    hosts.wait_for_all(f"claimed {folder}")
    with held(folder):
        yield


def _complete(folder: pathlib.Path, job: Job) -> None:
    """Write down what content a run is of, where that was not known before."""
    config = runlog.read_config(folder)
    known = config.get("content", {})
    if not job.content.keys() <= known.keys():
        content = {**known, **job.content}
        runlog.write_json(folder / "config.json", {**config, "content": content})
