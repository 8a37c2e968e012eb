"""Figures with one message: lines labeled at their ends, few colors, small files."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from kdjax.core import runlog

# Four of Okabe and Ito's colors, distinct for color-blind readers. More lines are gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
GRAY = "#9A9A9A"
_DARK = "#404040"
# Inches and dots an inch: twice the 800 pixels at which a page shows it.
_SIZE, _DPI = (8.0, 4.8), 200
# The height of a line of text, as a fraction of the axes.
_LINE = 0.058
# The characters of a line of a label.
_WRAP = 34


class Line(NamedTuple):
    """A line of a figure: means by x, with standard errors where there are some.

    label: the words at its end; none if empty.
    color: gray, without error bars, if it is none of `COLORS`.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] = ()
    color: str = GRAY


def new_figure(
    title: str, across: str, up: str, *, panels: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure of `_SIZE` with a title and named axes."""
    figure = Figure(figsize=_SIZE, dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = list(figure.subplots(1, panels, squeeze=False, sharey=True)[0])
    figure.suptitle(plain(title), fontsize=14, x=0.02, ha="left")
    for axis in axes:
        axis.set_xlabel(across, fontsize=12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=11)
        axis.set_axisbelow(True)
    axes[0].set_ylabel(up, fontsize=12)
    return figure, axes


def draw_lines(
    axis: Axes, lines: Sequence[Line], *, aligned: bool = True, bands: bool = False
) -> None:
    """Draw lines, gray ones behind, and label them at their ends.

    aligned: labels in a column right of the axes, else next to the last points.
    bands: errors as bands around the lines, else as bars at the points.
    """
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    lines = [line for line in lines if len(line.x)]
    for line in sorted(lines, key=lambda line: line.color != GRAY):
        gray = line.color == GRAY
        style: dict[str, Any] = {"color": line.color, "marker": "o"}
        style |= {"markersize": 2.5, "linewidth": 1.0} if gray else {"linewidth": 2.2}
        axis.plot(line.x, line.y, **style)
        if len(line.error) and not gray:
            _draw_errors(axis, line, bands)
    _label_ends(axis, [line for line in lines if line.label], aligned)


def _draw_errors(axis: Axes, line: Line, bands: bool) -> None:
    error = np.nan_to_num(np.asarray(line.error, float))
    if not error.any():
        return
    if bands and len(line.x) > 1:
        low, high = line.y - error, line.y + error
        style = {"color": line.color, "alpha": 0.15, "linewidth": 0}
        axis.fill_between(line.x, low, high, **style)
    else:
        axis.errorbar(line.x, line.y, error, color=line.color, linewidth=1.2)


def _label_ends(axis: Axes, lines: Sequence[Line], aligned: bool) -> None:
    """Words at the last point of each line, moved apart where they would touch."""
    # Limits are settled before places are computed from them.
    axis.set_xlim(axis.get_xlim())
    axis.set_ylim(axis.get_ylim())
    low, high = axis.get_ylim()
    lines = [line for line in lines if np.isfinite(line.y).any()]
    ends = [_last_point(line) for line in lines]
    heights = [(y - low) / (high - low) for _, y in ends]
    words = [textwrap.fill(line.label, _WRAP) for line in lines]
    gap = _LINE * max((text.count("\n") + 1 for text in words), default=1)
    across, unit = (1.03, "axes fraction") if aligned else (10, "offset points")
    positions = spread(heights, gap)
    for line, text, end, height in zip(lines, words, ends, positions, strict=True):
        gray = line.color == GRAY
        axis.annotate(
            plain(text),
            xy=end,
            xytext=(across, height),
            textcoords=(unit, "axes fraction"),
            va="center",
            annotation_clip=False,
            color=_DARK if gray else line.color,
            fontsize=10 if gray else 12,
            arrowprops={
                "arrowstyle": "-",
                "color": line.color,
                "linewidth": 0.8,
                "linestyle": ":",
            },
        )


def _last_point(line: Line) -> tuple[float, float]:
    """The last point with a finite value."""
    finite = [(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(y)]
    return finite[-1]


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, in the same order and as near as can be.

    Least squares under the constraint, by pooling adjacent violators.

    >>> [round(h, 3) for h in spread([0.5, 0.0, 0.5], gap=0.2)]
    [0.4, 0.0, 0.6]
    """
    order = np.argsort(heights, kind="stable")
    pools: list[list[float]] = []
    for i, index in enumerate(order):
        pools.append([heights[index] - i * gap])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    moved = [float(np.mean(pool)) for pool in pools for _ in pool]
    placed = np.empty(len(heights))
    placed[order] = np.array(moved) + gap * np.arange(len(heights))
    return placed.tolist()


def log_durations(axis: Axes, steps: Sequence[float]) -> None:
    """A log axis of numbers of steps with a tick at each of them."""
    if not len(steps):
        return
    ticks = sorted(set(steps))
    axis.set_xscale("log")
    axis.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def plain(text: str) -> str:
    """A label as it is: matplotlib reads `$` as a formula and hides a leading `_`."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def write_png(figure: Figure, path: runlog.Path, colors: int = 48) -> None:
    """Write a figure as a PNG of few colors, a quarter of the size of one of all."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    content = io.BytesIO()
    palette = image.quantize(colors, dither=Image.Dither.NONE)
    palette.save(content, "PNG", optimize=True)
    runlog.write_bytes(path, content.getvalue())
