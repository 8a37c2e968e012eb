"""Numbers out of the Markdown tables of a report."""

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from kdjax.core import runlog

Rows = Mapping[str, Mapping[str, "Cell"]]


class Cell(NamedTuple):
    """A mean and its standard error (NaN where there is none), as printed."""

    mean: float
    error: float


def read_tables(report: runlog.Path) -> dict[str, Rows]:
    """The tables of a sweep's `report.md`: {heading: {row: {column: cell}}}.

    Cells without a number, and tables without a heading, are skipped.

    Raises:
      RunFolderError: the file cannot be read.
    """
    path = pathlib.Path(report)
    try:
        sections = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]
    except OSError as error:
        raise runlog.RunFolderError(f"cannot read {path}: {error.strerror}") from error
    tables = {}
    for section in sections:
        heading, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        if len(lines) > 2:
            tables[heading.strip()] = _rows(lines)
    return tables


def _rows(lines: list[str]) -> Rows:
    (_, *columns), _, *rows = map(_cells, lines)
    table = {}
    for name, *cells in rows:
        pairs = zip(columns, map(_number, cells), strict=True)
        table[name] = {column: cell for column, cell in pairs if cell is not None}
    return table


def _cells(line: str) -> list[str]:
    # A bar within a cell is escaped.
    parts = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [part.strip().replace("\\|", "|") for part in parts]


def _number(text: str) -> Cell | None:
    match = re.fullmatch(r"\**(-?[\d.,]+)(?: ± ([\d.]+))?\**", text)
    if match is None:
        return None
    error = float(match[2]) if match[2] else float("nan")
    return Cell(float(match[1].replace(",", "")), error)


def by_steps(row: Mapping[str, Cell]) -> dict[int, Cell]:
    """The cells of the columns that name a number of steps, by it."""
    pairs = ((steps_of(column), cell) for column, cell in row.items())
    return {steps: cell for steps, cell in pairs if steps is not None}


def by_times(row: Mapping[str, Cell]) -> dict[int, Cell]:
    """The cells of the columns of durations, `x4` or `x4 (640 steps)`, by multiple."""
    matches = ((re.match(r"x(\d+)\b", column), cell) for column, cell in row.items())
    return {int(match[1]): cell for match, cell in matches if match}


def steps_of(column: str) -> int | None:
    """The number of steps in a column's head, as `x4 (640 steps)`.

    >>> steps_of("x64 (10,240 steps)")
    10240
    """
    match = re.search(r"\(([\d,]+) (?:steps|updates)\)", column)
    return int(match[1].replace(",", "")) if match else None
