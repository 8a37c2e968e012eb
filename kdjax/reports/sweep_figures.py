"""Figures of a sweep: results by duration, courses of training, and two relations."""

import io
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdjax.config import Experiment
from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, curve
from kdjax.reports.plots import COLOURS, MARKERS, log_steps, plain
from kdjax.reports.sweep_results import (
    METRICS,
    Runs,
    epochs,
    losses,
    mean_and_error,
    values,
)

# One more than plots.py needs, so that the paper's eight modes all differ.
_COLOURS = (*COLOURS, "#8C6D31")


def write_figures(
    experiment: Experiment, runs: Runs, scale: str, root: pathlib.Path
) -> dict[str, str]:
    """Write a sweep's figures into its folder: `{file: caption}`.

    results.png: the results of finished runs against how long they trained, or where
        all trained equally long variant by variant.
    curves.png: loss and validation results during the longest runs.
    relations.png: training loss against held-out KL, agreement against accuracy.
    """
    if not runs:
        return {}
    several = len(experiment.times(scale)) > 1
    figures = {
        "results.png": (_results, "Results against duration")
        if several
        else (_results_in_rows, "Results of each variant"),
        "curves.png": (_curves, "The course of the longest runs"),
        "relations.png": (_relations, "Loss against KL, agreement against accuracy"),
    }
    captions = {}
    for name, (draw, caption) in figures.items():
        figure = draw(experiment, runs, scale)
        if figure is None:
            continue
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content)
        runlog.write_bytes(root / name, content.getvalue())
        captions[name] = caption
    return captions


def _results(experiment: Experiment, runs: Runs, scale: str) -> Figure | None:
    """Each metric of the finished runs against how long they trained."""
    shown = [m for m in METRICS if any(values(run, m) for run in runs.values())]
    if not shown:
        return None
    figure, axes = _panels(len(shown))
    size, unit = _duration(runs)
    for metric, axis in zip(shown, axes, strict=True):
        about, all_places = METRICS[metric], []
        for number, variant in enumerate(experiment.shown):
            found = _of(runs, variant, scale, experiment)
            found = [run for run in found if values(run, metric)]
            places = [size(run) * run.config["steps"] for run in found]
            pairs = [mean_and_error(values(run, metric)) for run in found]
            axis.errorbar(
                places,
                [about.scale * mean for mean, _ in pairs],
                [about.scale * (0.0 if math.isnan(e) else e) for _, e in pairs],
                **_style(number, variant),
            )
            all_places += places
        _dress(axis, about.title, unit, about.unit)
        log_steps(axis, all_places)
    return _with_legend(figure)


def _results_in_rows(experiment: Experiment, runs: Runs, scale: str) -> Figure | None:
    """Each metric of the finished runs of one duration, a row a variant."""
    shown = [m for m in METRICS if any(values(run, m) for run in runs.values())]
    if not shown:
        return None
    (times,) = experiment.times(scale)
    names = [variant for variant in experiment.shown if (variant, times) in runs]
    figure, axes = _panels(len(shown), height=1.2 + 0.25 * len(names))
    rows = range(len(names))
    for metric, axis in zip(shown, axes, strict=True):
        about = METRICS[metric]
        pairs = [mean_and_error(values(runs[name, times], metric)) for name in names]
        means = [about.scale * mean for mean, _ in pairs]
        errors = [about.scale * (0.0 if math.isnan(e) else e) for _, e in pairs]
        axis.errorbar(means, rows, xerr=errors, fmt="o", color=_COLOURS[0])
        _dress(axis, about.title, about.unit, "")
        axis.set_yticks(
            rows, [plain(name) for name in names] if axis is axes[0] else []
        )
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="x", color="0.9", linewidth=0.8)
    return figure


def _curves(experiment: Experiment, runs: Runs, scale: str) -> Figure | None:
    """Loss and validation results during the longest runs, as the paper's figure 3."""
    longest = max(times for _, times in runs)
    found = {name: run for (name, times), run in runs.items() if times == longest}
    panels = [
        ("Validation accuracy", "%", 100, lambda run: curve(run, "accuracy")),
        ("Training loss", "nats", 1, losses),
        ("Validation KL", "nats", 1, lambda run: curve(run, "kl")),
    ]
    panels = [p for p in panels if any(p[3](run) for run in found.values())]
    if not panels:
        return None
    figure, axes = _panels(len(panels))
    size, unit = _duration(runs)
    for (title, metric_unit, factor, read), axis in zip(panels, axes, strict=True):
        all_places = []
        for number, variant in enumerate(experiment.shown):
            points = read(found[variant]) if variant in found else {}
            points = {step: v for step, v in points.items() if step > 0}
            places = [size(found[variant]) * step for step in points]
            means = [factor * float(np.mean(v)) for v in points.values()]
            style = {**_style(number, variant), "markersize": 2.5, "linewidth": 1.2}
            axis.plot(places, means, **style)
            all_places += places
        _dress(axis, title, unit, metric_unit)
        log_steps(axis, all_places)
    return _with_legend(figure)


def _relations(experiment: Experiment, runs: Runs, scale: str) -> Figure | None:
    """One metric against another; a point a run, the larger the longer it trained."""
    pairs = [("train_loss", "kl"), ("agreement", "accuracy")]
    have = {
        pair: [r for r in runs.values() if values(r, pair[0]) and values(r, pair[1])]
        for pair in pairs
    }
    pairs = [pair for pair in pairs if have[pair]]
    if not pairs:
        return None
    figure, axes = _panels(len(pairs))
    for pair, axis in zip(pairs, axes, strict=True):
        across, up = (METRICS[metric] for metric in pair)
        for number, variant in enumerate(experiment.shown):
            found = _of(runs, variant, scale, experiment)
            found = [run for run in found if run in have[pair]]
            x, y = (
                [METRICS[m].scale * float(np.mean(values(run, m))) for run in found]
                for m in pair
            )
            style = _style(number, variant)
            axis.plot(x, y, **{**style, "linewidth": 0.8})
            sizes = [16.0 * (i + 1) for i in range(len(found))]
            how = {"color": style["color"], "marker": style["marker"]}
            axis.scatter(x, y, sizes, **how)
        _dress(axis, up.title, f"{across.title} ({across.unit})", up.unit)
    return _with_legend(figure)


def _of(
    runs: Runs, variant: str, scale: str, experiment: Experiment
) -> list[RunRecord]:
    """The finished runs of one variant, shortest first."""
    times = experiment.times(scale)
    return [runs[variant, t] for t in times if (variant, t) in runs]


def _duration(runs: Runs) -> tuple[Callable[[RunRecord], float], str]:
    """How long an update of a run is, and what the axis of it is called."""
    if all(epochs(run) for run in runs.values()):
        return (lambda run: epochs(run) or 1.0), "epochs (log scale)"
    return (lambda run: 1), "updates (log scale)"


def _style(number: int, variant: str) -> dict:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.5,
        "label": plain(variant),
    }


def _panels(count: int, height: float = 4.4) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4.2 * max(count, 1), height), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.1)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _dress(axis: Axes, title: str, across: str, up: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.8)


def _with_legend(figure: Figure) -> Figure:
    """A legend of what is drawn in any panel."""
    drawn: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            line: Any = handle[0] if isinstance(handle, tuple) else handle
            if len(line.get_xdata()):
                drawn.setdefault(name, handle)
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure
