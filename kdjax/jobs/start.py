"""What every job begins with: checks, data, and a claim on the run folder."""

import pathlib
from typing import Any, NamedTuple

from rich.console import Console

from kdjax import build
from kdjax import config as configs
from kdjax.build import Trained
from kdjax.build.cache import digest, is_abstract
from kdjax.config import Run, require
from kdjax.core import hosts, runlog
from kdjax.core.types import Model, PyTree
from kdjax.data.source import Source, check_labelled, fingerprint
from kdjax.data.sources import Splits
from kdjax.train.trackers import check_installed


class Job(NamedTuple):
    """What the parts of one job share.

    given: a line for each thing that was handed over from Python.
    content: digests of what a run is of: its images, its teacher, its start.
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

    def taught_by(self, teacher: Trained | None) -> "Job":
        """The same with a teacher whose variables are known; shapes tell nothing."""
        if teacher is None or is_abstract(teacher):
            return self
        text = " ".join([digest(teacher.variables), *filter(None, teacher.code)])
        return self._replace(content={**self.content, "teacher": text})

    def starting_from(self, variables: PyTree) -> "Job":
        """The same with a student that does not begin at random; None does."""
        if variables is None:
            return self
        return self._replace(content={**self.content, "start": digest(variables)})


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
    data = {name: build.load_source(run, name, splits) for name in names}
    train = data["train"]
    for name in names[1:]:
        check_labelled(data[name], f"data.{name}")
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
    # Told by their content.
    *("given.splits", "given.teacher"),
)


def _free(folder: pathlib.Path, run: Run, job: Job) -> tuple[str, ...]:
    """`_FREE`, where a store lies if there was one before (it says what it is), and
    content that is not known on both sides."""
    if not (folder / "config.json").is_file():
        return _FREE
    config = runlog.read_config(folder)
    before = (config.get("teacher") or {}).get("cache") or {}
    stored = before.get("path") and run.teacher and run.teacher.cache.path
    known = config.get("content", {})
    unknown = [f"content.{name}" for name in known.keys() ^ job.content.keys()]
    unknown += [] if known and job.content else ["content"]
    return (*_FREE, *(["teacher.cache.path"] if stored else []), *unknown)


def _identity(run: Run, job: Job) -> dict[str, Any]:
    beside = {"given": job.given, "content": job.content}
    return {**configs.to_dict(run), **{k: v for k, v in beside.items() if v}}


def refuse_other(folder: pathlib.Path, run: Run, job: Job) -> None:
    runlog.check_folder(folder, _identity(run, job), _free(folder, run, job))


def claim(folder: pathlib.Path, run: Run, job: Job) -> None:
    hosts.wait_for_all(f"checked {folder}")
    if hosts.is_first():
        runlog.open_run(folder, _identity(run, job), _free(folder, run, job))
        _complete(folder, job)
    hosts.wait_for_all(f"claimed {folder}")


def _complete(folder: pathlib.Path, job: Job) -> None:
    """Write down what content a run is of, where that was not known before."""
    config = runlog.read_config(folder)
    known = config.get("content", {})
    if not job.content.keys() <= known.keys():
        content = {**known, **job.content}
        runlog.write_json(folder / "config.json", {**config, "content": content})
