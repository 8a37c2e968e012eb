"""The state of runs that train now, as a table: of their folders alone, without JAX."""

import math
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from kdjax.core import bucket, runlog
from kdjax.core.timeline import read_events
from kdjax.reports.goodput import find_attempts, goodput
from kdjax.reports.tables import ABSENT, make_table

# Seconds without an event after which a run no longer counts as training.
SILENT = 120.0
_HEADS = (
    *("run", "step", "loss", "valid. (%)", "agree (%)", "img /s", "GiB", "good (%)"),
    *("left", "state"),
)


class RunState(NamedTuple):
    """A run as its folder shows it.

    name: of the folder, below the path that was given.
    state: finished, training, starting, or why it does not train.
    cells: the other columns of the table.
    problem: why the folder cannot be read, if so.
    """

    name: str
    state: str
    cells: tuple[str, ...]
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """True where nothing more will come by itself."""
        return self.state not in ("training", "starting")


def find_runs(paths: Iterable[runlog.Path]) -> list[tuple[str, pathlib.Path]]:
    """The run folders at some paths and below, by name.

    Raises RunFolderError for a path without one.
    """
    found: dict[pathlib.Path, str] = {}
    for path in (bucket.open_folder(x, "runs") for x in paths):
        configs = sorted(path.glob("**/config.json"), key=lambda x: len(x.parts))
        if not configs:
            runlog.read_config(path)
        for config in configs:
            folder = config.parent
            inner = folder.relative_to(path).as_posix()
            name = path.name or str(path)
            found.setdefault(folder, name if inner == "." else f"{name}/{inner}")
    return [(name, folder) for folder, name in found.items()]


def run_state(name: str, folder: pathlib.Path, now: float) -> RunState:
    """The state of one run. now: the time of the clock, in seconds."""
    try:
        config = runlog.read_config(folder)
        metrics, events = runlog.read_metrics(folder), read_events(folder)
        finished = runlog.is_finished(folder)
    except runlog.RunFolderError as error:
        return RunState(name, "unreadable", (ABSENT,) * (len(_HEADS) - 2), str(error))
    problem = ""
    if not finished and (folder / "summary.json").is_file():
        problem = f"{folder / 'summary.json'} cannot be read"
    steps = config.get("steps", 0)
    done = max((x["step"] for x in events if x["event"] == "steps"), default=0)
    done = max([done, *(x["step"] for x in metrics)])
    state = "finished" if finished else _state(events, folder, now)
    train = _last(metrics, "train")
    validation = _last(metrics, "validation")
    windows = [x for x in events if x["event"] == "steps" and x["step"] > x["from"]]
    memory = max((_memory(x) for x in windows[-1:]), default=0)
    cells = (
        f"{done}/{steps}",
        _mean(train.get("loss"), "{:.4f}"),
        _mean(validation.get("accuracy"), "{:.1f}", 100),
        _mean(validation.get("agreement"), "{:.1f}", 100),
        _count(train.get("images_per_second")),
        f"{memory / 2**30:.1f}" if memory else ABSENT,
        f"{100 * goodput(find_attempts(events)):.0f}" if windows else ABSENT,
        _left(windows, steps - done) if state == "training" else ABSENT,
    )
    return RunState(name, state, cells, problem)


def progress_table(states: Sequence[RunState]) -> Table:
    """Runs as a table for a terminal."""
    rows = [(state.name, *state.cells, state.state) for state in states]
    # Columns without a value would take the place of names.
    shown = [
        i for i in range(len(_HEADS)) if any(row[i] != ABSENT for row in rows) or i < 2
    ]
    heads = [_HEADS[i] for i in shown]
    return make_table(heads, [[row[i] for i in shown] for row in rows], least=12)


def _state(events: Sequence[dict[str, Any]], folder: pathlib.Path, now: float) -> str:
    """The state of a run that is not finished."""
    if not events:
        begun = (folder / "config.json").stat().st_mtime
        return "starting" if now - begun < SILENT else "unfinished"
    last = events[-1]
    if last["event"] == "end" and last.get("reason") == "finished":
        return "without a summary"
    if last["event"] == "end":
        return f"ended: {last.get('reason', 'unknown')}"
    # A slow run has an event each few minutes.
    usual = max((x["seconds"] for x in events if x["event"] == "steps"), default=0)
    silent = now - last["time"]
    if silent < max(SILENT, 3 * usual):
        return "training"
    return f"silent {_duration(silent)}"


def _last(lines: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((x for x in reversed(lines) if x["kind"] == kind), {})


def _mean(values: Any, form: str, scale: float = 1.0) -> str:
    try:
        return form.format(scale * float(np.mean(values)))
    except (TypeError, ValueError):
        return ABSENT


def _count(value: Any) -> str:
    """A number in at most 5 characters."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return ABSENT
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e6 if letter == 'M' else 1e3):.0f}{letter}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _memory(event: dict[str, Any]) -> float:
    """Bytes on the devices where they are known, else of the host."""
    memory = event.get("memory")
    found = memory if isinstance(memory, dict) else {}
    return found.get("device") or found.get("host") or 0


def _left(windows: Sequence[dict[str, Any]], steps: int) -> str:
    if not windows:
        return ABSENT
    last = windows[-5:]
    pace = sum(x["seconds"] for x in last) / sum(x["step"] - x["from"] for x in last)
    return _duration(pace * steps)


def _duration(seconds: float) -> str:
    """A time in a few characters: 45s, 12m, 5h 07m, 3d 04h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{max(seconds, 0):.0f}s"
    if minutes < 60:
        return f"{minutes}m"
    if hours < 24:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{hours // 24}d {hours % 24:02d}h"


def states_of(runs: Iterable[tuple[str, pathlib.Path]]) -> list[RunState]:
    """The states of runs now."""
    now = time.time()
    return [run_state(name, folder, now) for name, folder in runs]
