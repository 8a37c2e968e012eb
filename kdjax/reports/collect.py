"""Run folders as records, the input of tables and plots."""

import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.config import require_run_folder, require_type
from kdjax.core import bucket, runlog
from kdjax.core.timeline import read_events


class RunRecord(NamedTuple):
    """The contents of one run folder.

    name: the run's name, from its config.
    path: the folder.
    config: the fields of `config.json`.
    metrics: the lines of `metrics.jsonl`, in the order of writing.
    summary: the fields of `summary.json`; None while the run is not finished.
    events: the lines of `events.jsonl`.
    """

    name: str
    path: pathlib.Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any] | None
    events: Sequence[dict[str, Any]] = ()


def collect(paths: Iterable[runlog.Path] | runlog.Path) -> list[RunRecord]:
    """One record for each folder, in the order of `paths`; a single path is one.

    A folder that is named twice, also by a link, gives one record. A summary that
    cannot be read is a warning, and the run has none.

    Raises:
        RunFolderError: a path is no run folder, or a file in it cannot be read; the
            text names it.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    require_type(paths, Iterable, "runs", "a path or several")
    paths = list(paths)
    for path in paths:
        require_type(path, (str, os.PathLike), "runs", "a path")
        require_run_folder(path, "runs")
    folders: dict[pathlib.Path, pathlib.Path] = {}
    for path in (bucket.open_folder(x, "runs") for x in paths):
        folders.setdefault(path.resolve(), path)
    return [_record(path) for path in folders.values()]


def label(record: RunRecord, records: Sequence[RunRecord]) -> str:
    """The name of a run among `records`, with its folder where others share it."""
    same = [other for other in records if other.name == record.name]
    text = record.name if len(same) == 1 else f"{record.name}, {record.path}"
    state = progress(record)
    return f"{text} ({state})" if state else text


def progress(record: RunRecord) -> str:
    """`unfinished at step N of M`; empty for a finished run."""
    if record.summary is not None:
        return ""
    if (record.path / "summary.json").is_file():
        return "summary.json cannot be read"
    step = max((line["step"] for line in record.metrics), default=0)
    return f"unfinished at step {step} of {record.config['steps']}"


def curve(record: RunRecord, metric: str) -> dict[int, list[float]]:
    """A validation metric by step, one value a seed; empty where it was not measured.

    A step that was written twice (by a run that was resumed) has its later values.
    """
    lines = [line for line in record.metrics if line["kind"] == "validation"]
    values = {line["step"]: line[metric] for line in lines if metric in line}
    return dict(sorted(values.items()))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) over the seeds.

    The spread of a single value is None. If any value is not finite, both are NaN.
    """
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread


def make_record(
    path: pathlib.Path,
    config: dict[str, Any],
    metrics: list[dict[str, Any]],
    summary: dict[str, Any] | None,
) -> RunRecord:
    """A record of checked values; `path` is named in errors.

    Raises:
        RunFolderError: a field that tables need is missing or of another type.
    """
    for field in ("name", "steps"):
        if field not in config:
            text = f"{path / 'config.json'} is not a run's config: no field {field}"
            raise runlog.RunFolderError(text)
    for line in metrics:
        where = f"{path / 'metrics.jsonl'}, {line['kind']} at step {line['step']}"
        # Every line of training has a loss; the other metrics depend on the run.
        loss = {"loss": line.get("loss")} if line["kind"] == "train" else {}
        values = {name: line[name] for name in MEASURED if name in line}
        _check_numbers(where, {**values, **loss}, config.get("seeds"))
    if summary:
        where = f"{path / 'summary.json'}, test"
        _check_numbers(where, summary["test"], config.get("seeds"))
    return RunRecord(str(config["name"]), path, config, metrics, summary)


def _record(path: pathlib.Path) -> RunRecord:
    config = runlog.read_config(path)
    metrics, summary = runlog.read_metrics(path), runlog.read_summary(path)
    file = path / "summary.json"
    if summary is None and file.is_file():
        advice = "rerun the command of the run, which measures it again"
        warnings.warn(f"{file}: is cut off or has holes; {advice}", stacklevel=3)
    if summary and summary.get("log", "") not in ("", runlog.hash_metrics(path)):
        text = f"{path / 'metrics.jsonl'}: has changed since the run ended"
        warnings.warn(f"{text}; curves and losses may be wrong", stacklevel=3)
    record = make_record(path, config, metrics, summary)
    return record._replace(events=read_events(path, warn=True))


# The metrics that tables and figures read.
MEASURED = "loss", "accuracy", "agreement", "kl"


def _check_numbers(where: str, values: dict[str, Any], seeds: int | None) -> None:
    """Raise `RunFolderError` unless each value is a list of numbers, one a seed."""
    for name, value in values.items():
        ok = isinstance(value, list) and all(type(v) in (int, float) for v in value)
        if not ok or len(value) != (seeds or len(value)):
            many = f"{seeds} numbers" if seeds else "numbers"
            text = f"{where}: {name}: expected a list of {many}, got {value!r:.80}"
            raise runlog.RunFolderError(text)
