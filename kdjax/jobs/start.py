"""What every job begins with: checks, data, and a claim on the run folder."""

import pathlib
from typing import Any, NamedTuple

from rich.console import Console

from kdjax import build
from kdjax import config as configs
from kdjax.build.cache import digest
from kdjax.config import Run, require
from kdjax.core import hosts, runlog
from kdjax.core.types import Model
from kdjax.data.source import Source, check_labelled, fingerprint
from kdjax.data.sources import Splits
from kdjax.train.trackers import check_installed


class Job(NamedTuple):
    """What the parts of one job share: data, and what was handed over from Python."""

    data: dict[str, Source]
    splits: Splits | None
    student: Model | None
    given: dict[str, str]
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
    given = _fingerprints(splits, student, teacher)
    console = console or Console(quiet=not hosts.is_first())
    return Job(data, splits, student, given, console)


def _fingerprints(splits, student, teacher) -> dict[str, str]:
    """A line for each thing that came from Python, for `config.json` to name it."""
    given = {}
    if splits is not None:
        found = [splits[name] for name in sorted(splits)]
        marks = [fingerprint(x) for x in found if isinstance(x, Source)]
        arrays = [x for x in found if not isinstance(x, Source)]
        given["splits"] = "".join(marks) + (digest(arrays) if arrays else "")
    if student is not None:
        given["model"] = "a model of the caller's"
    if teacher is not None:
        given["teacher"] = digest(teacher[1])
    return given


# Fields that do not change what comes out: a run may go on with others.
_FREE = (
    *("workdir", "compute", "trackers"),
    *("data.feed", "data.workers", "data.data_dir"),
)


def _free(folder: pathlib.Path, run: Run) -> tuple[str, ...]:
    """`_FREE`, and where a store lies if there was one before: it says what it is."""
    if not (folder / "config.json").is_file():
        return _FREE
    before = (runlog.read_config(folder).get("teacher") or {}).get("cache") or {}
    stored = before.get("path") and run.teacher and run.teacher.cache.path
    return (*_FREE, "teacher.cache.path") if stored else _FREE


def _identity(run: Run, given: dict[str, str]) -> dict[str, Any]:
    values = configs.to_dict(run)
    return {**values, "given": given} if given else values


def refuse_other(folder: pathlib.Path, run: Run, given: dict[str, str]) -> None:
    runlog.check_folder(folder, _identity(run, given), _free(folder, run))


def claim(folder: pathlib.Path, run: Run, given: dict[str, str]) -> None:
    hosts.wait_for_all(f"checked {folder}")
    if hosts.is_first():
        runlog.open_run(folder, _identity(run, given), _free(folder, run))
    hosts.wait_for_all(f"claimed {folder}")
