"""Results as tables: Markdown for a report, rich for a terminal, the same cells."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kdjax.reports.collect import RunRecord, label, mean_and_spread
from kdjax.reports.goodput import SPENT, find_attempts, goodput, overall
from kdjax.reports.plan_table import plan_table

ABSENT = "–"


class _Column(NamedTuple):
    head: str
    cell: Callable[[dict[str, Any]], str]


def results_table(records: Sequence[RunRecord]) -> str:
    """A Markdown table, one row a run. Numbers are of the test split."""
    rows = [[escape(cell) for cell in row] for row in _rows(records)]
    heads = ["run", *(column.head for column in _COLUMNS)]
    rules = ["---", *("---:" for _ in _COLUMNS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows]) + "\n"


def terminal_table(records: Sequence[RunRecord]) -> Table:
    """The cells of `results_table` for a terminal."""
    heads = ["run", *(column.head for column in _COLUMNS)]
    table = make_table(heads, _rows(records))
    table.caption = "± is the sample standard deviation over the seeds"
    table.caption_justify = "left"
    return table


def make_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], least: int | None = None
) -> Table:
    """A table for a terminal, of names in the first column and numbers.

    least: width of the first column at least.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold", min_width=least)
    for number, head in enumerate(heads[1:], start=1):
        # Only headings and names are broken over lines, never a number.
        width = max((len(row[number]) for row in rows), default=1)
        head = textwrap.fill(head, width, break_long_words=False)
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def report_markdown(records: Sequence[RunRecord], figures: Mapping[str, str]) -> str:
    """A report: how the runs were made, their table and figures, {path: caption}."""
    names = ", ".join(dict.fromkeys(escape(record.name) for record in records))
    parts = [f"# Results: {names}", provenance(records), _meaning(records)]
    parts.append(results_table(records).rstrip())
    parts.append(time_table(records).rstrip())
    parts.append(plan_table(records).rstrip())
    parts += [f"![{caption}]({path})" for path, caption in figures.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def time_table(records: Sequence[RunRecord]) -> str:
    """A Markdown table of the seconds that each part took; empty without events.

    A run of several attempts has a row for each, and one of all.
    """
    rows = []
    for record in records:
        attempts = find_attempts(record.events)
        name = escape(label(record, records))
        for number, attempt in enumerate(attempts, start=1):
            more = f", attempt {number}" if len(attempts) > 1 else ""
            rows.append([f"{name}{more}", *_times(attempt.seconds, attempt.goodput)])
        if len(attempts) > 1:
            rows.append([f"{name}, all", *_times(overall(attempts), goodput(attempts))])
    if not rows:
        return ""
    heads = ["seconds of", *(_HEADS.get(name, name) for name in SPENT), "between"]
    table = [[*heads, "goodput (%)"], ["---", *["---:"] * (len(SPENT) + 2)], *rows]
    text = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return (
        "Goodput is the share of steps that count in the time of the process, and "
        "`lost` is of steps that were trained again after an interruption.\n\n"
        f"{text}\n"
    )


_HEADS = {"setup": "start-up", "data": "data wait"}


def _times(spent: Mapping[str, float], share: float) -> list[str]:
    cells = [f"{spent[name]:,.1f}" for name in SPENT]
    between = f"{spent['between']:,.1f}" if "between" in spent else ABSENT
    return [*cells, between, ABSENT if math.isnan(share) else f"{100 * share:.1f}"]


def _rows(records: Sequence[RunRecord]) -> list[list[str]]:
    rows = []
    for record in records:
        summary = record.summary
        cells = [ABSENT if summary is None else c.cell(summary) for c in _COLUMNS]
        rows.append([label(record, records), *cells])
    return rows


def _test(metric: str, scale: float, digits: int) -> Callable[[dict[str, Any]], str]:
    def cell(summary: dict[str, Any]) -> str:
        values = summary.get("test", {}).get(metric)
        return _mean(values, scale, digits) if values else ABSENT

    return cell


def _mean(values: Sequence[float], scale: float, digits: int) -> str:
    bad = sum(not math.isfinite(value) for value in values)
    if bad:
        return f"not finite ({bad} of {len(values)} seeds)"
    mean, spread = mean_and_spread([value * scale for value in values])
    text = f"{mean:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def _number(field: str, digits: int) -> Callable[[dict[str, Any]], str]:
    def cell(summary: dict[str, Any]) -> str:
        return f"{summary[field]:,.{digits}f}" if field in summary else ABSENT

    return cell


_COLUMNS = (
    _Column("parameters", _number("parameters", 0)),
    _Column("accuracy (%)", _test("accuracy", 100, 2)),
    _Column("agreement with the teacher (%)", _test("agreement", 100, 2)),
    _Column("held-out KL (nats)", _test("kl", 1, 4)),
    _Column("seconds", _number("seconds", 1)),
)


def provenance(records: Sequence[RunRecord]) -> str:
    commands = _values(records, "command", str)
    block = "\n".join(["```bash", *commands, "```"]) if commands else ""
    lines = []
    shown = {"machine": str, "versions": _pairs, "seeds": _items}
    shown |= {"left_out": _left, "targets": str, "memory": _memory}
    for field, show in shown.items():
        values = _values(records, field, show)
        if values:
            head = field.replace("_", " ").capitalize()
            lines.append(f"- {head}: {escape('; '.join(_whose(values)))}")
    return "\n\n".join(part for part in (block, "\n".join(lines)) if part)


def _values(
    records: Sequence[RunRecord], field: str, show: Callable[[Any], str]
) -> dict[str, list[str]]:
    """Each value of a field of the summaries, with the names of its runs."""
    names_by_value: dict[str, list[str]] = {}
    for record in records:
        if record.summary is not None and record.summary.get(field):
            text = show(record.summary[field])
            names_by_value.setdefault(text, []).append(record.name)
    return names_by_value


def _whose(values: dict[str, list[str]]) -> list[str]:
    """Values with the names of their runs, or of the largest group their number."""
    if len(values) == 1:
        return list(values)
    most = max(len(names) for names in values.values())

    def runs(names: list[str]) -> str:
        counted = len(names) == most and most > 4
        return f"{most} runs" if counted else ", ".join(names)

    return [f"{value} ({runs(names)})" for value, names in values.items()]


def _items(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _pairs(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _left(counts: dict[str, int]) -> str:
    each = " and ".join(f"{n} of the {split} split" for split, n in counts.items())
    return f"{each}, images that cannot be decoded"


def _memory(peaks: dict[str, int]) -> str:
    each = " and ".join(f"{size / 2**30:.1f} GiB of {k}" for k, size in peaks.items())
    return f"{each} at the peak of the process"


def _meaning(records: Sequence[RunRecord]) -> str:
    data = [record.config.get("data") or {} for record in records]
    test, validation = (
        " and ".join(dict.fromkeys(f"`{d.get(split, split)}`" for d in data))
        for split in ("test", "validation")
    )
    return (
        f"The table is of the test split ({test}), on which nothing was chosen: mean ± "
        "sample standard deviation over the seeds (n - 1). Held-out KL is "
        "KL(teacher || student) in nats at temperature 1. The seeds of a run are "
        "trained side by side and its seconds are of all of them together. Figures are "
        f"of the validation split ({validation}); their bands are the same spread."
        f"{_differences(records)}"
    )


def _differences(records: Sequence[RunRecord]) -> str:
    """A sentence where runs were measured on other images or with other teachers."""
    finished = [record for record in records if record.summary is not None]
    images, teachers = (_by_content(finished, part) for part in ("test", "teacher"))
    texts = []
    if len(images) > 1:
        each = "; ".join(_data_of(group, records) for group in images)
        texts.append(f"The runs were measured on different test images: {each}.")
    if len(teachers) > 1:
        texts.append("Agreement and KL are with different teachers.")
    return "".join(f"\n\n**{text}**" for text in texts)


def _by_content(records: Sequence[RunRecord], part: str) -> list[list[RunRecord]]:
    """Groups of runs with the same fingerprint of a part, such as the test images."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        content = record.config.get("content") or {}
        if part in content:
            groups.setdefault(content[part], []).append(record)
    return list(groups.values())


def _data_of(group: Sequence[RunRecord], records: Sequence[RunRecord]) -> str:
    """The data set of runs with their names: `` `digits` (labels, distilled)``."""
    data = group[0].config.get("data") or {}
    names = ", ".join(label(record, records) for record in group)
    return escape(f"`{data.get('name', 'data')}` ({names})")


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
