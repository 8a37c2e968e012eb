"""What the figure draws, read from its axes, and how its file is written."""

import errno
import os
import pathlib

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from kdjax.core.runlog import RunFolderError
from kdjax.reports import RunRecord, plot_curves, plots

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
    """Plot to a file and give back the figure that was drawn."""
    drawn = []
    canvas = plots.FigureCanvasAgg

    def keep(figure):
        drawn.append(figure)
        return canvas(figure)

    monkeypatch.setattr(plots, "FigureCanvasAgg", keep)

    def call(records):
        plot_curves(records, tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
        assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
        return drawn[-1]

    return call


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_three_panels_with_units_on_log_steps(draw):
    axes = draw([full()]).axes
    assert [axis.get_title() for axis in axes] == [
        "Validation accuracy",
        "Agreement with the teacher",
        "Held-out KL",
    ]
    assert [axis.get_xscale() for axis in axes] == ["log"] * 3
    assert all("step" in axis.get_xlabel() for axis in axes)
    units = ("%", "%", "nats")
    assert all(u in a.get_ylabel() for u, a in zip(units, axes, strict=True))


def test_lines_are_means_and_bands_are_sample_deviations(draw):
    accuracy, _, kl = draw([full()]).axes
    (line,) = accuracy.lines
    np.testing.assert_array_equal(line.get_xdata(), [10, 100, 1000])
    np.testing.assert_allclose(line.get_ydata(), [10.5, 15.0, 60.0])
    np.testing.assert_allclose(kl.lines[0].get_ydata(), [0.2, 0.02, 0.002])
    # Two seeds 20 points apart: half of 20 times sqrt(2).
    ((band,),) = [c.get_paths() for c in accuracy.collections]
    at_end = band.vertices[np.isclose(band.vertices[:, 0], 1000), 1]
    ends = [60 - 200**0.5, 60 + 200**0.5]
    np.testing.assert_allclose([at_end.min(), at_end.max()], ends)


def test_one_seed_has_no_band(draw):
    figure = draw([record("a", {1: {"accuracy": [0.5]}, 10: {"accuracy": [0.6]}})])
    assert not figure.axes[0].collections


def test_panels_without_a_value_are_left_out(draw):
    figure = draw([record("a", {10: {"accuracy": [0.1, 0.2]}})])
    assert [axis.get_title() for axis in figure.axes] == ["Validation accuracy"]


def test_a_run_without_a_teacher_keeps_its_place_in_the_legend(draw):
    labels = record("labels", {10: {"accuracy": [0.5, 0.6]}})
    figure = draw([labels, full("funmatch")])
    assert legend(figure) == ["labels", "funmatch"]
    accuracy, agreement, _ = figure.axes
    assert accuracy.lines[1].get_color() == agreement.lines[1].get_color()
    assert len(agreement.lines[0].get_xdata()) == 0


def test_one_evaluation_point_shows_its_value_and_spread(draw):
    (axis,) = draw([record("a", {100: {"accuracy": [0.5, 0.7]}})]).axes
    assert axis.lines[0].get_marker() not in (None, "None", "")
    (bar,) = axis.collections[0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [60 - 200**0.5, 60 + 200**0.5])
    low, high = axis.get_xlim()
    assert low < 100 < high
    assert len(
        axis.get_xticks()[(low <= axis.get_xticks()) * (axis.get_xticks() <= high)]
    )


def test_step_zero_has_no_place_on_a_log_axis(draw):
    (axis,) = draw([record("a", {0: {"accuracy": [0.1]}, 9: {"accuracy": [0.5]}})]).axes
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [9])
    assert axis.get_xlim()[0] > 0


def test_no_evaluation_yet(draw):
    unfinished = record()._replace(summary=None)
    figure = draw([unfinished])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no evaluation yet"]
    assert legend(figure) == ["a (unfinished at step 0 of 1000)"]


def test_a_seed_that_diverged_leaves_a_gap(draw):
    points = {
        s: {"kl": [0.5, v]} for s, v in ((1, 0.5), (2, np.inf), (3, np.nan), (4, 1))
    }
    (axis,) = draw([record("a", points)]).axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.5, np.nan, np.nan, 0.75])


def test_the_teacher_is_a_dashed_level_at_its_last_accuracy(draw):
    points = {5: {"accuracy": [0.2]}, 50: {"accuracy": [0.8]}}
    figure = draw([record("teacher", points), full("funmatch")])
    accuracy, agreement, _ = figure.axes
    run, level = accuracy.lines
    assert level.get_linestyle() == "--"
    np.testing.assert_allclose(level.get_ydata(), [80, 80])
    assert [text.get_text() for text in accuracy.texts] == ["teacher 80.0"]
    assert legend(figure) == ["funmatch"]
    assert len(agreement.lines) == 1
    assert accuracy.get_ylim()[1] > 80


def test_a_teacher_alone_is_a_curve(draw):
    figure = draw(
        [record("teacher", {5: {"accuracy": [0.2]}, 50: {"accuracy": [0.8]}})]
    )
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [20, 80])
    assert legend(figure) == ["teacher"]


def test_a_teacher_without_evaluations_draws_nothing(draw):
    figure = draw([record("teacher"), full("funmatch")])
    assert len(figure.axes[0].lines) == 1


def test_neighbouring_runs_differ_in_colour_and_marker(draw):
    lines = draw([full(f"run {n}", n / 100) for n in range(9)]).axes[0].lines
    looks = [(to_hex(line.get_color()), line.get_marker()) for line in lines]
    assert len(set(looks)) == 9
    assert len({colour for colour, _ in looks}) == 7


def test_names_are_drawn_as_they_are(draw):
    names = ["$\\frac{$", "_hidden", "cost $5 and $6"]
    texts = legend(draw([full(name) for name in names]))
    assert [text.replace(r"\$", "$").strip() for text in texts] == names


def test_nothing_overlaps(draw):
    runs = [full(f"a run with a long name {n}", n / 100) for n in range(5)]
    figure = draw(runs)
    renderer = figure.canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes]
    boxes.append(figure.legends[0].get_window_extent(renderer))
    for number, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[number + 1 :])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height
    for axis in figure.axes:
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
