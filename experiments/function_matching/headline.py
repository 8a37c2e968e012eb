"""The figure of the front page, from the tables of two checked-in reports.

    PYTHONPATH=. python experiments/function_matching/headline.py

The students on labels are those of `labels.py`: the same images, network and steps.
"""

import pathlib

from kdjax.reports.drawing import (
    COLORS,
    GRAY,
    Line,
    draw_lines,
    log_durations,
    new_figure,
    write_png,
)
from kdjax.reports.read_tables import by_steps, read_tables

RESULTS = pathlib.Path(__file__).parent / "results"
TITLE = "Consistent teaching keeps improving; a fixed teacher stops"
METRIC = "Test accuracy (%)"
WORDS = {
    "mix": "function matching",
    "same/ic": "consistent teaching",
    "labels": "labels",
    "fix/rs": "fixed teacher",
}
REPORTS = {
    "consistency-digits": ("mix", "same/ic", "fix/rs"),
    "labels-digits": ("labels",),
}


def lines() -> list[Line]:
    """The named variants in color, the others of the sweep of consistency in gray."""
    drawn = []
    for report, named in REPORTS.items():
        table = read_tables(RESULTS / report / "report.md")[METRIC]
        gray = set(table) - set(named) if report == "consistency-digits" else set()
        for variant in [*named, *sorted(gray)]:
            row = by_steps(table[variant])
            means, errors = zip(*row.values(), strict=True)
            color = COLORS[list(WORDS).index(variant)] if variant in WORDS else GRAY
            drawn.append(Line(WORDS.get(variant, ""), list(row), means, errors, color))
    return drawn


def main() -> None:
    figure, (axis,) = new_figure(TITLE, "steps", "test accuracy (%)")
    log_durations(axis, [step for line in lines() for step in line.x])
    draw_lines(axis, lines())
    note = "mean ± standard error over the seeds\ngray: other choices of views"
    axis.text(0.98, 0.03, note, transform=axis.transAxes, ha="right", fontsize=10)
    write_png(figure, RESULTS / "consistency-digits" / "headline.png")


if __name__ == "__main__":
    main()
