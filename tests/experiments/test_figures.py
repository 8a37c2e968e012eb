"""Figures of a sweep: which are drawn, and the numbers in them."""

import dataclasses

import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.experiments import Experiment, above
from kdjax.experiments.figures import (
    draw_grid,
    draw_relation,
    draw_results,
    main_metric,
)
from kdjax.presets import digits
from kdjax.reports.drawing import COLORS, GRAY
from kdjax.reports.read_tables import Cell

NAN = float("nan")


def run(scale):
    return digits(steps=10)


def experiment(names="abcdef", **fields):
    variants = dict.fromkeys(names, run)
    durations = {"tiny": (1,), "mine": (1, 4)}
    return Experiment("letters", variants, durations, **fields)


def table(**rows):
    return {
        name: dict(zip((1, 4), (Cell(v, 1.0) for v in values), strict=False))
        for name, values in rows.items()
    }


def lines(axis):
    """Points of the lines by color; the first of a color wins."""
    found = {}
    for line in axis.get_lines():
        if line.get_marker() == "o":
            found.setdefault(line.get_color(), line.get_xydata().tolist())
    return found


def test_named_variants_are_colored_and_the_others_gray():
    words = {"b": "the second", "a": "the first"}
    letters = experiment(highlight=words)
    tables = {"accuracy": table(a=[20, 30], b=[40, 60], c=[50])}
    drawn = draw_results(letters, "mine", tables, {})
    assert drawn is not None
    figure, caption = drawn
    (axis,) = figure.axes
    assert caption == "Test accuracy against steps"
    assert [axis.get_xlabel(), axis.get_ylabel()] == ["steps", "test accuracy (%)"]
    assert lines(axis) == {
        GRAY: [[10, 50]],
        COLORS[0]: [[10, 40], [40, 60]],
        COLORS[1]: [[10, 20], [40, 30]],
    }
    labels = {text.get_text(): text.get_color() for text in axis.texts}
    assert labels["the second"] == COLORS[0] and labels["the first"] == COLORS[1]
    assert labels.keys() == {"the second", "the first", "c"}


def test_by_default_the_most_named_variants_are_colored():
    hypotheses = (above("x", "f", "e"), above("y", "f", "d"), above("z", "c", "d"))
    letters = experiment(hypotheses=hypotheses)
    rows = {name: [10 * i, 10 * i + 5] for i, name in enumerate("abcdef")}
    figure, _ = draw_results(letters, "mine", {"accuracy": table(**rows)}, {}) or (0, 0)
    colors = {t.get_text() for t in figure.axes[0].texts if t.get_color() in COLORS}
    assert colors == set("cdef")


def test_the_metric_of_most_hypotheses_is_drawn():
    hypotheses = (above("x", "a", "b", metric="kl"), above("y", "a", "b", metric="kl"))
    letters = experiment(hypotheses=(*hypotheses, above("z", "a", "b")))
    one = table(a=[1, 2])
    assert main_metric(letters, {"accuracy": one, "kl": one}) == "kl"
    assert main_metric(letters, {"accuracy": one, "kl": {}}) == "accuracy"
    assert main_metric(experiment(), {"agreement": one, "accuracy": one}) == "accuracy"
    assert main_metric(letters, {"accuracy": {}}) is None
    assert draw_results(letters, "mine", {"accuracy": {}}, {}) is None


def test_results_of_one_duration_are_a_row_a_variant():
    cells = {"a": {1: Cell(30.0, 10.0)}, "b": {1: Cell(50.0, NAN)}}
    figure, caption = draw_results(experiment(), "tiny", {"accuracy": cells}, {}) or ()
    (axis,) = figure.axes
    assert caption == "Test accuracy of each variant"
    (points,) = [line for line in axis.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xydata(), [[30, 0], [50, 1]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    (bars,) = axis.collections
    spans = [segment[:, 0].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(spans, [[20, 40], [50, 50]])


def test_a_relation_is_drawn_of_runs_with_both_metrics():
    tables = {"train_loss": table(a=[2.0, 1.0], b=[3.0]), "kl": table(a=[0.5, 0.7])}
    figure, caption = draw_relation(experiment(), tables) or ()
    (axis,) = figure.axes
    assert caption == "Held-out KL against training loss"
    assert list(lines(axis).values()) == [[[2.0, 0.5], [1.0, 0.7]]]
    assert axis.get_xlabel() == "training loss (nats)"
    assert axis.get_ylabel() == "held-out KL (nats)"
    assert draw_relation(experiment(), {"train_loss": {}, "kl": {}}) is None


def rated(lr, wd):
    def make(scale):
        optim = dataclasses.replace(digits().optim, lr=lr, wd=wd)
        return digits(steps=10, optim=optim)

    return make


def test_a_grid_is_a_heat_map_of_the_best_at_each_cell():
    variants = {
        f"{lr} {wd} {again}": rated(lr, wd)
        for lr in (0.1, 0.2)
        for wd in (0.0, 0.5)
        for again in (1, 2)
    }
    durations = {"mine": (1, 4)}
    fields = {"variants": variants, "durations": durations}
    letters = Experiment("a grid", **fields, grid=("optim.lr", "optim.wd"))
    rows = {
        "0.1 0.0 1": {1: Cell(10.0, 1.0), 4: Cell(11.0, 1.0)},
        "0.1 0.0 2": {1: Cell(20.0, 1.0)},
        "0.2 0.5 1": {1: Cell(30.0, 1.0), 4: Cell(40.0, 1.0)},
    }
    figure, caption = draw_grid(letters, "mine", rows)
    short, long = figure.axes
    assert caption == "Best validation accuracy over optim.lr and optim.wd"
    assert [short.get_title(), long.get_title()] == ["10 steps", "40 steps"]
    expected = {short: [[NAN, 30], [20, NAN]], long: [[NAN, 40], [11, NAN]]}
    for axis, cells in expected.items():
        shown = np.ma.filled(axis.images[0].get_array().astype(float), np.nan)
        np.testing.assert_array_equal(shown, cells)
        assert [t.get_text() for t in axis.get_xticklabels()] == ["0.1", "0.2"]
        bold = [t.get_text() for t in axis.texts if t.get_weight() == "bold"]
        assert bold == [f"{np.nanmax(cells):.1f}"]
    assert [t.get_text() for t in short.get_yticklabels()] == ["0.5", "0"]
    wrong = dataclasses.replace(letters, grid=("optim.lr", "optim.name"))
    with pytest.raises(ConfigError, match="grid: expected a number .* optim.name, got"):
        draw_grid(wrong, "mine", rows)
