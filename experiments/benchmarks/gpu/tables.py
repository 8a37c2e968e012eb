"""Rows of one part of the GPU script, on disk after every change. Needs no JAX."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

LATE, RUNNING = "not run: out of time", "started, not finished"
# Of a planned row, so that a part killed at any second leaves it behind.
STOPPED = "not run: the part was stopped"
# A row is not started with less than this left.
LEAST = 3.0


class Skip(Exception):
    """A row that is not whole: its state, and the values that it has."""

    def __init__(self, state: str, values: dict[str, Any] | None = None):
        super().__init__(state)
        self.values = values or {}


def write(path: pathlib.Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def complain(text: str) -> None:
    """A message into the log of the part, unless its disk is full."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Table:
    """Planned and measured rows of one part, in PART.json and PART.md.

    Every row is listed from the moment it is planned, so a part that is stopped shows
    the rows that it did not reach.
    """

    def __init__(self, part: str, folder: pathlib.Path, seconds: float):
        self.part, self._folder = part, folder
        self._end = time.monotonic() + seconds
        self._start = time.monotonic()
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._notes: list[str] = []
        self._finished = False

    def left(self) -> float:
        """Seconds that the part may still take."""
        return self._end - time.monotonic()

    def plan(self, table: str, names: Iterable[str]) -> None:
        """List rows before they are measured."""
        for name in names:
            row = {"table": table, "row": name, "state": STOPPED, "values": {}}
            self._rows.setdefault((table, name), row)
        self._save()

    def note(self, text: str) -> None:
        """Add one line below the tables."""
        self._notes.append(text)
        self._save()

    def put(self, table: str, name: str, values: dict[str, Any]) -> None:
        """Record a row measured elsewhere."""
        self.plan(table, [name])
        self._rows[table, name].update(state="", values=plain(values))
        self._save()

    def skip(self, table: str, name: str, why: str) -> None:
        """Record the reason for a missing row."""
        self.plan(table, [name])
        self._rows[table, name]["state"] = why
        self._save()

    def measure(
        self,
        table: str,
        name: str,
        function: Callable[[], dict[str, Any]],
        least: float = LEAST,
    ) -> dict[str, Any] | None:
        """Measure one row, with `least` seconds left; an error becomes its state."""
        self.plan(table, [name])
        row = self._rows[table, name]
        if self.left() < least:
            self.skip(table, name, LATE)
            return None
        row["state"] = RUNNING
        self._save()
        start = time.monotonic()
        try:
            row["values"] = plain(function())
            row["state"] = ""
        except Skip as reason:
            row["values"] = plain(reason.values)
            row["state"] = str(reason)
        except Exception as error:
            complain(traceback.format_exc())
            row["state"] = f"error: {one_line(error)}"
        row["seconds"] = round(time.monotonic() - start, 2)
        self._save()
        return row["values"] or None

    def finish(self) -> None:
        """Mark the part as complete."""
        self._finished = True
        for row in self._rows.values():
            row["state"] = LATE if row["state"] == STOPPED else row["state"]
        self._save()

    def _save(self) -> None:
        content = {
            "part": self.part,
            "finished": self._finished,
            "seconds": round(time.monotonic() - self._start, 1),
            "rows": list(self._rows.values()),
            "notes": self._notes,
        }
        text = json.dumps(content, indent=1, allow_nan=False)
        # A full disk ends no part: the next row is written with this one.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(self._folder / f"{self.part}.json", f"{text}\n")
            write(self._folder / f"{self.part}.md", markdown(content))
        except OSError as error:
            complain(one_line(error))


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values for JSON, which has no NaN and no infinity: they become strings."""
    return {
        name: str(x) if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in values.items()
    }


def one_line(error: BaseException) -> str:
    """The first line of an error, shortened."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return f"{type(error).__name__}: {text[:200]}"


def show(value: Any) -> str:
    """A value of a cell: four significant digits for a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).replace("|", "/").split())
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def markdown(content: dict[str, Any]) -> str:
    """The tables of one part."""
    state = "" if content["finished"] else "; stopped before its end"
    lines = [f"## {content['part']}", "", f"{content['seconds']} s{state}.", ""]
    for table in dict.fromkeys(row["table"] for row in content["rows"]):
        rows = [row for row in content["rows"] if row["table"] == table]
        columns = list(dict.fromkeys(name for row in rows for name in row["values"]))
        lines += ["| " + " | ".join([table, *columns, "state"]) + " |"]
        lines += ["| --- |" + " ---: |" * len(columns) + " --- |"]
        for row in rows:
            cells = [show(row["values"].get(name, "")) for name in columns]
            lines += [
                "| " + " | ".join([row["row"], *cells, show(row["state"])]) + " |"
            ]
        lines += [""]
    lines += [f"- {note}" for note in content["notes"]]
    return "\n".join(lines).rstrip() + "\n"
