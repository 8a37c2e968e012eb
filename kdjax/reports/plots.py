"""Curves of runs against training steps, on a log axis as in the paper."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, curve, label, mean_and_spread
from kdjax.reports.drawing import COLORS, GRAY, Line, draw_lines, new_figure, write_png

TEACHER = "teacher"
# By metric: title, axis and factor.
_METRICS = {
    "accuracy": ("Validation accuracy", "validation accuracy (%)", 100),
    "kl": ("Validation KL", "validation KL (nats)", 1),
}


def plot_curves(
    records: Sequence[RunRecord], path: runlog.Path, metric: str = "accuracy"
) -> bool:
    """Draw a validation metric of runs against steps into a PNG file.

    Lines are means over the seeds, bands the sample standard deviation around them.
    The first four runs have colors, the others are gray. Among other runs, a run named
    `teacher` is a dashed level at its last accuracy. Evaluations at step 0 are left
    out, since a log axis has no 0.

    Args:
      metric: accuracy, or kl: KL(teacher || student).

    Returns:
      False where no run has the metric; of accuracy an empty figure is written then.
    """
    title, up, factor = _METRICS[metric]
    teachers = [record for record in records if record.name == TEACHER]
    runs = [record for record in records if record.name != TEACHER]
    if not runs:
        runs, teachers = teachers, []
    lines = [_line(run, runs, metric, factor) for run in runs]
    colors = iter(COLORS)
    lines = [line._replace(color=next(colors, GRAY)) for line in lines if line.x]
    if not lines and metric != "accuracy":
        return False
    figure, (axis,) = new_figure(title, "steps", up)
    log_steps(axis, [step for line in lines for step in line.x])
    if metric == "accuracy":
        for teacher in teachers:
            _draw_level(axis, teacher)
    draw_lines(axis, lines, bands=True)
    if not lines:
        axis.text(0.5, 0.5, "no evaluation yet", transform=axis.transAxes, ha="center")
        axis.set(xticks=[], yticks=[])
    write_png(figure, path)
    return bool(lines)


def _line(
    run: RunRecord, runs: Sequence[RunRecord], metric: str, factor: float
) -> Line:
    points = {step: v for step, v in curve(run, metric).items() if step > 0}
    pairs = [mean_and_spread(values) for values in points.values()]
    means = [factor * mean for mean, _ in pairs]
    spreads = [factor * (spread or 0.0) for _, spread in pairs]
    return Line(label(run, runs), list(points), means, spreads)


def _draw_level(axis: Axes, teacher: RunRecord) -> None:
    accuracies = [v for step, v in curve(teacher, "accuracy").items() if step > 0]
    level = 100 * mean_and_spread(accuracies[-1])[0] if accuracies else math.nan
    if math.isfinite(level):
        axis.axhline(level, color=GRAY, linestyle="--", linewidth=1.2)
        transform = axis.get_yaxis_transform()
        text = f"teacher {level:.1f}"
        axis.text(0.02, level, text, transform=transform, va="bottom", fontsize=10)


def log_steps(axis: Axes, steps: Sequence[float]) -> None:
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
    axis.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,g}"))
