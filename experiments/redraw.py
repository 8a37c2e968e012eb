"""Redraw the checked-in figures from the tables of their reports.

    PYTHONPATH=. python experiments/redraw.py [REPORT.md ...]

A new report brings its own figures; this is for those whose runs are gone.
"""

import pathlib
import sys

from kdjax.experiments import load_experiment
from kdjax.experiments.figures import draw_results
from kdjax.experiments.results import METRICS
from kdjax.reports.drawing import write_png
from kdjax.reports.read_tables import by_times, read_tables

HERE = pathlib.Path(__file__).parent
VALIDATION = "(validation accuracy, %)"


def redraw(report: pathlib.Path) -> pathlib.Path:
    """Draw `results.png` beside a report: its path.

    The report is that of GROUP/results/EXPERIMENT-SCALE/report.md.
    """
    name, _, scale = report.parent.name.rpartition("-")
    experiment = load_experiment(report.parents[2] / f"{name}.py")
    sections = {
        heading: {variant: by_times(row) for variant, row in rows.items()}
        for heading, rows in read_tables(report).items()
    }
    tables = {
        metric: sections.get(f"{how.title} ({how.unit})", {})
        for metric, how in METRICS.items()
    }
    validation = {}
    for heading, table in sections.items():
        validation |= table if heading.endswith(VALIDATION) else {}
    drawn = draw_results(experiment, scale, tables, validation)
    assert drawn is not None, f"{report} has no results"
    file = report.parent / "results.png"
    write_png(drawn[0], file)
    return file


def main() -> None:
    reports = [pathlib.Path(argument).resolve() for argument in sys.argv[1:]]
    for report in reports or sorted(HERE.glob("*/results/*/report.md")):
        # The headline has a script of its own.
        if "(results.png)" not in report.read_text():
            continue
        file = redraw(report)
        print(f"{file.stat().st_size:7,} bytes  {file.relative_to(HERE)}")


if __name__ == "__main__":
    main()
