"""Figures of a sweep, at most two, each with one message."""

import collections
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.config import is_number, require, to_dict
from kdjax.experiments.experiment import Experiment
from kdjax.experiments.records import Runs
from kdjax.experiments.results import (
    METRICS,
    Table,
    metric_table,
    reported_metrics,
    validation_table,
)
from kdjax.reports.drawing import (
    COLORS,
    GRAY,
    Line,
    draw_lines,
    log_durations,
    new_figure,
    plain,
    write_png,
)

# Gray lines are labeled too where they are few.
_MOST_LABELS = 12


def write_figures(
    experiment: Experiment, runs: Runs, finished: Runs, scale: str, root: pathlib.Path
) -> dict[str, str]:
    """Write a sweep's figures into its folder: `{file: caption}`.

    results.png: the metric of most hypotheses, accuracy by default, against steps; or
        a row a variant for one duration; or, for a grid, a heat map.
    relations.png: held-out KL against training loss; not for a grid.
    """
    tables = {name: metric_table(runs, name) for name in reported_metrics(experiment)}
    validation = validation_table(finished) if experiment.grid else {}
    figures = {"results.png": draw_results(experiment, scale, tables, validation)}
    if not experiment.grid:
        figures["relations.png"] = draw_relation(experiment, tables)
    captions = {}
    for name, drawn in figures.items():
        if drawn is not None:
            figure, captions[name] = drawn
            write_png(figure, root / name)
    return captions


def draw_results(
    experiment: Experiment,
    scale: str,
    tables: Mapping[str, Table],
    validation: Table,
) -> tuple[Figure, str] | None:
    """The results of an experiment and their caption; None where there are none.

    tables: by metric; validation: accuracies in percent, read for a grid alone.
    """
    if experiment.grid:
        if not validation:
            return None
        return draw_grid(experiment, scale, validation)
    metric = main_metric(experiment, tables)
    if metric is None:
        return None
    if len(experiment.times(scale)) == 1:
        return _draw_rows(experiment, scale, metric, tables[metric])
    title = f"{experiment.path.stem}, {scale}: {_title(metric)}"
    figure, (axis,) = new_figure(title, "steps", _axis_title(metric))
    lines = []
    for variant, row in _in_order(experiment, tables[metric]):
        steps = [experiment.steps(variant, scale, times) for times in row]
        means, errors = zip(*row.values(), strict=True)
        lines.append(Line(variant, steps, means, errors))
    lines = _colored(experiment, lines)
    log_durations(axis, [step for line in lines for step in line.x])
    draw_lines(axis, lines)
    return figure, f"{METRICS[metric].title} against steps"


def draw_relation(
    experiment: Experiment, tables: Mapping[str, Table]
) -> tuple[Figure, str] | None:
    """Held-out KL against training loss: a line a variant, from short to long runs."""
    losses, kls = tables["train_loss"], tables["kl"]
    lines = []
    for variant, row in _in_order(experiment, losses):
        times = [t for t in row if t in kls.get(variant, {})]
        x, y = ([table[variant][t].mean for t in times] for table in (losses, kls))
        lines.append(Line(variant, x, y))
    if not any(line.x for line in lines):
        return None
    title = "Held-out KL against training loss, from short to long runs"
    across, up = _axis_title("train_loss"), _axis_title("kl")
    figure, (axis,) = new_figure(title, across, up)
    draw_lines(axis, _colored(experiment, lines), aligned=False)
    return figure, "Held-out KL against training loss"


def _draw_rows(
    experiment: Experiment, scale: str, metric: str, table: Table
) -> tuple[Figure, str]:
    """The results of one duration, a row a variant."""
    (times,) = experiment.times(scale)
    rows = _in_order(experiment, table)
    title = f"{experiment.path.stem}, {scale}: {_title(metric)}"
    figure, (axis,) = new_figure(title, _axis_title(metric), "")
    figure.set_figheight(1.2 + 0.27 * max(len(rows), 6))
    means, errors = zip(*(row[times] for _, row in rows), strict=True)
    heights = list(range(len(rows)))
    errors = np.nan_to_num(np.asarray(errors, float))
    axis.errorbar(means, heights, xerr=errors, fmt="o", color=COLORS[0])
    names = [experiment.highlight.get(name, name) for name, _ in rows]
    axis.set_yticks(heights, [plain(name) for name in names])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="both", color="0.92", linewidth=0.8)
    return figure, f"{METRICS[metric].title} of each variant"


def draw_grid(
    experiment: Experiment, scale: str, validation: Table
) -> tuple[Figure, str]:
    """Heat maps over the experiment's grid, one a duration.

    A cell has the highest validation accuracy of the variants at it. The best cell of a
    map is bold.
    """
    durations = [
        t
        for t in experiment.times(scale)
        if any(t in row for row in validation.values())
    ]
    across, up = experiment.grid
    places = {name: _place(experiment, name, scale) for name in validation}
    columns = sorted({x for x, _ in places.values()})
    rows = sorted({y for _, y in places.values()}, reverse=True)
    maps = []
    for times in durations:
        cells = np.full((len(rows), len(columns)), np.nan)
        for name, row in validation.items():
            if times in row:
                at = rows.index(places[name][1]), columns.index(places[name][0])
                cells[at] = np.fmax(cells[at], row[times].mean)
        maps.append(cells)
    title = f"{experiment.path.stem}, {scale}: best validation accuracy (%)"
    figure, axes = new_figure(title, across, up, panels=len(durations))
    for axis, times, cells in zip(axes, durations, maps, strict=True):
        steps = experiment.steps(next(iter(validation)), scale, times)
        axis.set_title(f"{steps:,} steps", fontsize=12)
        _draw_map(axis, cells)
        axis.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
        axis.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
    return figure, f"Best validation accuracy over {across} and {up}"


def _draw_map(axis: Axes, cells: np.ndarray) -> None:
    axis.imshow(cells, cmap="Blues", aspect="auto")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    best = np.unravel_index(np.nanargmax(cells), cells.shape)
    for (i, j), value in np.ndenumerate(cells):
        if math.isfinite(value):
            color = "white" if value > middle else "black"
            weight = "bold" if (i, j) == best else "normal"
            style: dict[str, Any] = {"color": color, "weight": weight, "fontsize": 11}
            axis.text(j, i, f"{value:.1f}", ha="center", va="center", **style)


def _place(experiment: Experiment, variant: str, scale: str) -> tuple[float, float]:
    """The values of the grid's two fields in a variant's config."""
    config = to_dict(experiment.run(variant, scale, 1))
    x, y = (_field(config, name) for name in experiment.grid)
    return x, y


def _field(config: dict[str, Any], name: str) -> float:
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    require(is_number(value), "grid", f"a number in the config at {name}", value)
    return float(value)


def main_metric(experiment: Experiment, tables: Mapping[str, Table]) -> str | None:
    """The metric of most hypotheses among those measured; accuracy in a tie."""
    counts = collections.Counter(h.metric for h in experiment.hypotheses)
    names = [name for name in METRICS if tables.get(name)]
    return max(names, key=lambda name: counts[name], default=None)


def _in_order(experiment: Experiment, table: Table) -> list[tuple[str, Any]]:
    return [(name, table[name]) for name in experiment.reported if name in table]


def _colored(experiment: Experiment, lines: Sequence[Line]) -> list[Line]:
    """Lines with the colors and words of the experiment's highlights."""
    words = experiment.highlight or _most_named(experiment, lines)
    colors = dict(zip(words, COLORS, strict=False))
    crowded = len(lines) > _MOST_LABELS
    return [
        line._replace(
            color=colors.get(line.label, GRAY),
            label=words.get(line.label, "" if crowded else line.label),
        )
        for line in lines
    ]


def _most_named(experiment: Experiment, lines: Sequence[Line]) -> dict[str, str]:
    """The variants that the hypotheses name most often, as many as there are colors."""
    counts = collections.Counter(
        name for h in experiment.hypotheses for _, name, _ in h.terms
    )
    names = sorted((line.label for line in lines), key=lambda name: -counts[name])
    return {name: name for name in names[: len(COLORS)]}


def _title(metric: str) -> str:
    """The metric's name within a sentence: "test accuracy", "held-out KL"."""
    title = METRICS[metric].title
    return title[0].lower() + title[1:]


def _axis_title(metric: str) -> str:
    return f"{_title(metric)} ({METRICS[metric].unit})"
