"""Plans of runs by `kdjax plan`, beside what was measured."""

import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from rich.filesize import decimal

from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, label

# In a run folder: the plans of its trainings, by hardware.
PLAN_FILE = "plan.json"
_HEADS = ("planned", "bytes of a device", "peak memory", "ms a step", "measured")


def plan_table(records: Sequence[RunRecord]) -> str:
    """A Markdown table of the plans that are kept in run folders; empty without one.

    The plan of a job is in its own folder, with those of its teacher and baselines.
    """
    rows = []
    for record in records:
        file = _find_file(record)
        if file is None:
            continue
        try:
            plans = runlog.read_json(file)["plans"]
            own = [_cells(x, record) for x in plans if x["name"] == record.name]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise runlog.RunFolderError(f"{file} is no plan of `kdjax plan`") from error
        rows += [[label(record, records), *cells] for cells in own]
    if not rows:
        return ""
    table = [["run", *_HEADS], ["---", "---", *["---:"] * (len(_HEADS) - 1)], *rows]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return (
        "Plans are of `kdjax plan`: bytes by the compiler, and the least time of a step"
        " at the public peaks of the chip. Measured are the peak memory of the process "
        f"and the median time of a step.\n\n{lines}\n"
    )


def _find_file(record: RunRecord) -> pathlib.Path | None:
    files = (folder / PLAN_FILE for folder in (record.path, record.path.parent))
    return next((x for x in files if x.is_file()), None)


def _cells(plan: dict[str, Any], record: RunRecord) -> list[str]:
    total = plan["program"].get("total")
    least = max(plan["least_seconds"].values(), default=math.nan)
    peaks = (record.summary or {}).get("memory") or {}
    peak = peaks.get("device") or peaks.get("host")
    images = plan["batch"] * plan["seeds"]
    rates = [x["images_per_second"] for x in record.metrics if x["kind"] == "train"]
    measured = images / statistics.median(rates) if rates else math.nan
    return [
        f"{plan['devices']} devices, {plan['on']}",
        decimal(total) if total else "does not fit",
        decimal(peak) if peak else "–",
        *("–" if math.isnan(x) else f"{1e3 * x:,.2f}" for x in (least, measured)),
    ]
