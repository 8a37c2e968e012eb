"""Records of a sweep's runs: its run folders, or all of them in one file."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.core import runlog
from kdjax.core.safe_read import parse_json, read_bytes
from kdjax.experiments.experiment import Experiment, run_folder
from kdjax.reports.collect import MEASURED, RunRecord, collect, make_record
from kdjax.setup.identity import open_folder, parse_identity

RECORDS = "records.jsonl"
_KINDS = {"experiment": str, "scale": str, "seeds": int, "folder": str}

Runs = Mapping[tuple[str, int], RunRecord]


def read_sweep(root: runlog.Path) -> dict[str, Any]:
    """The experiment's file, scale, seeds and first folder of a sweep.

    From `sweep.json`, or else from the first line of `records.jsonl`.

    Raises:
      RunFolderError: the folder is not a sweep's.
    """
    folder = pathlib.Path(root)
    file = folder / "sweep.json"
    if is_packed(folder):
        file = folder / RECORDS
        about = _read_lines(file)[0]
    else:
        about = runlog.read_json(file)
    about = {"folder": str(root), **about}
    for name, kind in _KINDS.items():
        if type(about.get(name)) is not kind:
            got = repr(about.get(name))[:80]
            text = f"{file}: {name}: expected {kind.__name__}, got {got}"
            raise runlog.RunFolderError(text)
    return about


def is_sweep(folder: runlog.Path) -> bool:
    """True for the folder of a sweep, or of its records alone."""
    return (pathlib.Path(folder) / "sweep.json").is_file() or is_packed(folder)


def is_packed(folder: runlog.Path) -> bool:
    """True for a folder with the records of a sweep and without its runs."""
    root = pathlib.Path(folder)
    return (root / RECORDS).is_file() and not (root / "sweep.json").is_file()


def finished_runs(
    experiment: Experiment, root: pathlib.Path, scale: str
) -> dict[tuple[str, int], RunRecord]:
    """The finished runs of a sweep, by variant and duration."""
    packed = _read_records(root / RECORDS) if is_packed(root) else {}
    runs = {}
    for variant in experiment.variants:
        for times in experiment.times(scale):
            name = run_folder(variant, times)
            if name in packed:
                runs[variant, times] = packed[name]
            elif runlog.is_finished(root / name):
                runs[variant, times] = collect([root / name])[0]
    return runs


def pack(root: pathlib.Path, runs: Iterable[RunRecord]) -> None:
    """Write `records.jsonl`: a line about the sweep, then one line a run.

    A line has the run's folder, config and summary, and the metrics that tables and
    figures read, as columns. Paths are relative to the working directory.
    """
    lines = [read_sweep(root)]
    for run in runs:
        columns = {
            kind: _columns(run.metrics, kind) for kind in ("train", "validation")
        }
        line = {"run": run.path.name, "config": run.config, "summary": run.summary}
        lines.append({**line, "metrics": columns})
    text = b"".join(map(runlog.dump, lines)).decode()
    here = json.dumps(os.getcwd() + os.sep)[1:-1]
    runlog.write_bytes(root / RECORDS, text.replace(here, "").encode())


def unpack(root: pathlib.Path) -> None:
    """Write the run folders of `records.jsonl`, for a sweep to continue from them."""
    for name, record in _read_records(root / RECORDS).items():
        folder = open_folder(root / name, parse_identity(record.config))
        for line in record.metrics:
            runlog.append_metrics(folder, line)
        # The digest is that of the lines in full.
        summary = {k: v for k, v in (record.summary or {}).items() if k != "log"}
        runlog.write_json(folder / "summary.json", summary)


def _columns(metrics: list[dict[str, Any]], kind: str) -> dict[str, list[Any]]:
    lines = [line for line in metrics if line["kind"] == kind]
    names = [name for name in MEASURED if any(name in line for line in lines)]
    return {name: [line.get(name) for line in lines] for name in ("step", *names)}


def _read_records(file: pathlib.Path) -> dict[str, RunRecord]:
    records = {}
    for number, line in enumerate(_read_lines(file)[1:], start=2):
        try:
            name, config = line["run"], line["config"]
            metrics = _rows(runlog.decode(line["metrics"]))
            summary = runlog.decode(line["summary"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{file}, line {number}: not the record of a run: {error!r}"
            raise runlog.RunFolderError(text) from error
        records[name] = make_record(file.parent / name, config, metrics, summary)
    return records


def _rows(columns: dict[str, dict[str, list[Any]]]) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, kind by kind."""
    return [
        {
            "kind": kind,
            **{k: v for k, v in zip(table, row, strict=True) if v is not None},
        }
        for kind, table in columns.items()
        for row in zip(*table.values(), strict=True)
    ]


def _read_lines(file: pathlib.Path) -> list[dict[str, Any]]:
    try:
        lines = [parse_json(line) for line in read_bytes(file).splitlines()]
    except (OSError, ValueError) as error:
        raise runlog.RunFolderError(f"cannot read {file}: {error}") from error
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise runlog.RunFolderError(f"{file}: expected a line about a sweep first")
    return lines
