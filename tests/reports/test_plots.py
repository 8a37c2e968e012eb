"""What the figure draws, read from its axes, and how its file is written."""

import errno
import os
import pathlib

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from kdjax.core.runlog import RunFolderError
from kdjax.reports import RunRecord, plots
from kdjax.reports.drawing import COLORS, GRAY
from kdjax.reports.drawing import write_png as write
from kdjax.reports.plots import plot_curves

PNG = b"\x89PNG\r\n\x1a\n"


def record(name="a", points=None, summary=None):
    points = {} if points is None else points
    lines = [
        {"kind": "validation", "step": s, **values} for s, values in points.items()
    ]
    config = {"name": name, "steps": 1000}
    return RunRecord(name, pathlib.Path("runs", name), config, lines, summary or {})


def full(name="a", shift=0.0):
    points = {}
    for step in (10, 100, 1000):
        top = shift + step / 2000
        points[step] = {
            "accuracy": [top, top + 0.2],
            "agreement": [top, top + 0.1],
            "kl": [1 / step, 3 / step],
        }
    return record(name, points)


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Plot to a file and give back the axes that were drawn."""
    drawn = []
    monkeypatch.setattr(
        plots,
        "write_png",
        lambda figure, path: (drawn.append(figure), write(figure, path)),
    )

    def call(records, metric="accuracy"):
        plot_curves(records, tmp_path / "curves.png", metric)
        assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
        assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
        (axis,) = drawn[-1].axes
        return axis

    return call


def labels(axis):
    return [text.get_text() for text in axis.texts]


def test_one_panel_with_units_on_log_steps(draw):
    axis = draw([full()])
    assert axis.figure.get_suptitle() == "Validation accuracy"
    assert axis.get_xscale() == "log"
    assert axis.get_xlabel() == "steps"
    assert axis.get_ylabel() == "validation accuracy (%)"
    axis = draw([full()], "kl")
    assert axis.figure.get_suptitle() == "Validation KL"
    assert axis.get_ylabel() == "validation KL (nats)"


def test_lines_are_means_and_bands_are_sample_deviations(draw):
    kl = draw([full()], "kl")
    np.testing.assert_allclose(kl.lines[0].get_ydata(), [0.2, 0.02, 0.002])
    accuracy = draw([full()])
    (line,) = accuracy.lines
    np.testing.assert_array_equal(line.get_xdata(), [10, 100, 1000])
    np.testing.assert_allclose(line.get_ydata(), [10.5, 15.0, 60.0])
    # Two seeds 20 points apart: half of 20 times sqrt(2).
    ((band,),) = [c.get_paths() for c in accuracy.collections]
    at_end = band.vertices[np.isclose(band.vertices[:, 0], 1000), 1]
    ends = [60 - 200**0.5, 60 + 200**0.5]
    np.testing.assert_allclose([at_end.min(), at_end.max()], ends)


def test_one_seed_has_no_band(draw):
    axis = draw([record("a", {1: {"accuracy": [0.5]}, 10: {"accuracy": [0.6]}})])
    assert not axis.collections


def test_a_metric_that_no_run_has_is_not_drawn(tmp_path):
    runs = [record("a", {10: {"accuracy": [0.1, 0.2]}})]
    assert not plot_curves(runs, tmp_path / "kl.png", "kl")
    assert not list(tmp_path.iterdir())
    assert plot_curves([full()], tmp_path / "kl.png", "kl")


def test_a_run_without_a_teacher_is_absent_from_the_kl(draw):
    run = record("labels", {10: {"accuracy": [0.5, 0.6]}})
    assert labels(draw([run, full("funmatch")])) == ["labels", "funmatch"]
    axis = draw([run, full("funmatch")], "kl")
    assert labels(axis) == ["funmatch"] and len(axis.lines) == 1


def test_one_evaluation_point_shows_its_value_and_spread(draw):
    axis = draw([record("a", {100: {"accuracy": [0.5, 0.7]}})])
    assert axis.lines[0].get_marker() not in (None, "None", "")
    (bar,) = axis.collections[0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [60 - 200**0.5, 60 + 200**0.5])
    low, high = axis.get_xlim()
    assert low < 100 < high
    assert len(
        axis.get_xticks()[(low <= axis.get_xticks()) * (axis.get_xticks() <= high)]
    )


def test_step_zero_has_no_place_on_a_log_axis(draw):
    axis = draw([record("a", {0: {"accuracy": [0.1]}, 9: {"accuracy": [0.5]}})])
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [9])
    assert axis.get_xlim()[0] > 0


def test_no_evaluation_yet(draw):
    axis = draw([record()._replace(summary=None)])
    assert labels(axis) == ["no evaluation yet"]


def test_a_seed_that_diverged_leaves_a_gap(draw):
    """The label is at the last point with a value."""
    values = ((1, 0.5), (2, np.inf), (3, 1.0), (4, np.nan))
    points = {s: {"kl": [0.5, v]} for s, v in values}
    axis = draw([record("a", points)], "kl")
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.5, np.nan, 0.75, np.nan])
    assert axis.texts[0].xy == (3, 0.75)


def test_the_teacher_is_a_dashed_level_at_its_last_accuracy(draw):
    points = {5: {"accuracy": [0.2]}, 50: {"accuracy": [0.8]}}
    axis = draw([record("teacher", points), full("funmatch")])
    level, run = axis.lines
    assert level.get_linestyle() == "--"
    np.testing.assert_allclose(level.get_ydata(), [80, 80])
    assert labels(axis) == ["teacher 80.0", "funmatch"]
    assert axis.get_ylim()[1] > 80
    assert len(draw([record("teacher", points), full("funmatch")], "kl").lines) == 1


def test_a_teacher_alone_is_a_curve(draw):
    axis = draw([record("teacher", {5: {"accuracy": [0.2]}, 50: {"accuracy": [0.8]}})])
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_ydata(), [20, 80])
    assert labels(axis) == ["teacher"]


def test_a_teacher_without_evaluations_draws_nothing(draw):
    assert len(draw([record("teacher"), full("funmatch")]).lines) == 1


def test_four_runs_have_colors_and_the_others_are_gray(draw):
    lines = draw([full(f"run {n}", n / 100) for n in range(9)]).lines
    colors = [line.get_color() for line in lines]
    assert sorted(colors) == sorted([*COLORS, *[GRAY] * 5])


def test_names_are_drawn_as_they_are(draw):
    names = ["$\\frac{$", "_hidden", "cost $5 and $6"]
    texts = labels(draw([full(name) for name in names]))
    assert [text.replace(r"\$", "$").strip() for text in texts] == names


def test_nothing_overlaps(draw):
    runs = [
        full(f"a run with quite a long name, number {n}", n / 100) for n in range(5)
    ]
    axis = draw(runs)
    renderer = axis.figure.canvas.get_renderer()
    # Those of the words, without the lines that lead to them.
    boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]
    assert len(boxes) == 5 and "\n" in axis.texts[0].get_text()
    for number, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[number + 1 :])
        assert box.x0 > axis.bbox.x1 and box.x1 <= axis.figure.bbox.width
    ticks = [t.get_window_extent(renderer) for t in axis.get_xticklabels()]
    for left, right in zip(ticks, ticks[1:], strict=False):
        assert left.x1 < right.x0


def test_a_failed_write_keeps_the_old_figure(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "curves.png").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(RunFolderError, match="curves.png: No space left on device"):
        plot_curves([full()], tmp_path / "curves.png")
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    assert (tmp_path / "curves.png").read_bytes() == b"old"


def test_the_callers_backend_and_settings_are_left_alone(tmp_path):
    def settings():
        # Reading the backend from rcParams would choose one.
        names = [name for name in matplotlib.rcParams if name != "backend"]
        values = {name: matplotlib.rcParams[name] for name in names}
        return values, matplotlib.get_backend(auto_select=False)

    before = settings()
    plot_curves([full()], tmp_path / "curves.png")
    assert settings() == before
