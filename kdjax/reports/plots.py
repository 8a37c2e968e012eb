"""Curves of runs against the training step, which is on a log axis as in the paper."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, curve, label, mean_and_spread

TEACHER = "teacher"

# Okabe and Ito's colours, told apart by colour-blind readers; without their yellow,
# which white paper swallows.
COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
MARKERS = "osD^vP"
_GREY = "#555555"


class _Panel(NamedTuple):
    metric: str
    title: str
    unit: str
    scale: float


_PANELS = (
    _Panel("accuracy", "Validation accuracy", "accuracy (%)", 100),
    _Panel("agreement", "Agreement with the teacher", "same top class (%)", 100),
    _Panel("kl", "Held-out KL", "KL(teacher || student) (nats)", 1),
)


def plot_curves(records: Sequence[RunRecord], path: runlog.Path) -> None:
    """Draw validation accuracy, agreement and KL of every run into a PNG file.

    Lines are means over the seeds, bands the sample standard deviation around them.
    Among other runs, a run named `teacher` is a dashed level at its last accuracy.
    Panels in which no run has a value are left out, as are evaluations at step 0, for
    which a log axis has no place.
    """
    teachers = [record for record in records if record.name == TEACHER]
    runs = [record for record in records if record.name != TEACHER]
    if not runs:
        runs, teachers = teachers, []
    panels = [p for p in _PANELS if any(_points(run, p.metric) for run in runs)]
    figure = _draw(panels or list(_PANELS[:1]), runs, teachers)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    runlog.write_bytes(path, content.getvalue())


def _draw(
    panels: Sequence[_Panel], runs: Sequence[RunRecord], teachers: Sequence[RunRecord]
) -> Figure:
    width = max(4.2 * len(panels), 5.2)
    rows = math.ceil(len(runs) / _columns(runs, width))
    size = (width, 3.6 + 0.24 * rows)
    figure = Figure(figsize=size, dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.1)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    steps = [step for run in runs for p in panels for step in _points(run, p.metric)]
    for panel, axis in zip(panels, axes, strict=True):
        _draw_runs(axis, panel, runs)
        _dress(axis, panel, steps)
    for teacher in teachers:
        _draw_level(axes[0], panels[0], teacher)
    handles, names = axes[0].get_legend_handles_labels()
    if handles:
        columns = _columns(runs, width)
        place = "outside lower center"
        figure.legend(handles, names, loc=place, ncols=columns, frameon=False)
    return figure


def _columns(runs: Sequence[RunRecord], width: float) -> int:
    """Legend columns that fit: a character is about 0.085 inch, a handle half one."""
    longest = max((len(label(run, runs)) for run in runs), default=1)
    return min(max(int(width / (0.085 * longest + 0.6)), 1), max(len(runs), 1))


def _draw_runs(axis: Axes, panel: _Panel, runs: Sequence[RunRecord]) -> None:
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        points = _points(run, panel.metric)
        pairs = [mean_and_spread(values) for values in points.values()]
        mean = panel.scale * np.array([mean for mean, _ in pairs])
        spread = panel.scale * np.array([spread or 0.0 for _, spread in pairs])
        style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.6}
        # A run without a value here is drawn empty: the legend is of all runs.
        axis.plot(list(points), mean, label=plain(label(run, runs)), **style)
        if spread.any():
            _draw_band(axis, list(points), mean - spread, mean + spread, colour)


def _draw_band(
    axis: Axes, steps: list[int], low: np.ndarray, high: np.ndarray, colour: str
) -> None:
    if len(steps) > 1:
        axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        axis.vlines(steps, low, high, color=colour, alpha=0.5)


def _draw_level(axis: Axes, panel: _Panel, teacher: RunRecord) -> None:
    points = _points(teacher, panel.metric)
    if panel.metric != "accuracy" or not points:
        return
    level = panel.scale * mean_and_spread(list(points.values())[-1])[0]
    if math.isfinite(level):
        axis.axhline(level, color=_GREY, linestyle="--", linewidth=1.2)
        place = axis.get_yaxis_transform()
        text = f"teacher {level:.1f}"
        axis.text(0.02, level, text, transform=place, va="bottom", color=_GREY, size=9)


def _dress(axis: Axes, panel: _Panel, steps: Sequence[int]) -> None:
    axis.set_title(panel.title, fontsize=11)
    axis.set_xlabel("training step (log scale)")
    axis.set_ylabel(panel.unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    if not steps:
        axis.text(0.5, 0.5, "no evaluation yet", transform=axis.transAxes, ha="center")
        axis.set(xticks=[], yticks=[])
        return
    log_steps(axis, steps)


def log_steps(axis: Axes, steps: Sequence[int]) -> None:
    """A log axis over numbers of steps; nothing where there are none."""
    if not steps:
        return
    low, high = min(steps) / 1.25, max(steps) * 1.25
    if high / low < 4:
        low, high = low / 2, high * 2
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    subs = (1, 2, 5) if high / low <= 100 else (1,)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_short))


def plain(text: str) -> str:
    """A label as it is: matplotlib reads `$` as a formula and hides a leading `_`."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _points(run: RunRecord, metric: str) -> dict[int, list[float]]:
    return {step: values for step, values in curve(run, metric).items() if step > 0}


def _short(step: float, _: int | None = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if step >= size:
            return f"{step / size:g}{letter}"
    return f"{step:g}"
