"""Figures of few colors: their labels, their numbers, and the size of their files."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from kdjax.core.runlog import RunFolderError
from kdjax.reports import drawing
from kdjax.reports.drawing import COLORS, GRAY, Line, draw_lines, new_figure, spread
from kdjax.reports.read_tables import read_tables, steps_of

REPORT = """# A report

| claim | ours |
| --- | ---: |
| not in a section | 1.00 |

## Test accuracy (%)

| variant | x1 (160 steps) | x4 (1,640 steps) |
| --- | ---: | ---: |
| a\\|b | 67.40 ± 2.67 | **77.62 ± 1.22** |
| c | – | 12.5 |

## Words alone

None.
"""


def test_numbers_of_a_report_are_read_from_its_tables(tmp_path):
    file = tmp_path / "report.md"
    file.write_text(REPORT)
    ((heading, rows),) = read_tables(file).items()
    assert heading == "Test accuracy (%)"
    first, second = "x1 (160 steps)", "x4 (1,640 steps)"
    assert rows["a|b"] == {first: (67.4, 2.67), second: (77.62, 1.22)}
    assert rows["c"].keys() == {second} and rows["c"][second].mean == 12.5
    assert np.isnan(rows["c"][second].error)
    assert [steps_of(first), steps_of(second), steps_of("variant")] == [160, 1640, None]
    with pytest.raises(RunFolderError, match="cannot read .*none.md: No such file"):
        read_tables(tmp_path / "none.md")


def test_spread_is_the_nearest_arrangement_with_a_gap():
    """Beside a search over a grid of all arrangements of three heights."""
    heights, gap = [0.5, 0.4, 0.5], 0.2
    places = spread(heights, gap)
    assert np.diff(sorted(places)).min() >= gap - 1e-12
    cost = np.square(np.subtract(places, heights)).sum()
    grid = np.linspace(0, 1, 41)
    others = [
        np.square(np.subtract(p, heights)).sum()
        for p in itertools.product(grid, repeat=3)
        if np.diff(sorted(p)).min() >= gap - 1e-12
    ]
    assert cost <= min(others) + 1e-12
    assert spread([], gap) == []


def test_lines_are_labeled_at_their_ends(tmp_path):
    figure, (axis,) = new_figure("one message", "steps", "test accuracy (%)")
    lines = [
        Line("same", [1, 10], [20.0, 50.0], [1.0, np.nan], COLORS[0]),
        Line("$other", [1, 10], [30.0, 50.0], color=COLORS[1]),
        Line("", [1, 10], [10.0, 20.0]),
        Line("not run", [], []),
    ]
    drawing.log_durations(axis, [1, 10])
    draw_lines(axis, lines)
    drawing.write_png(figure, tmp_path / "x.png")
    gray, *_ = axis.get_lines()
    assert gray.get_color() == GRAY and list(gray.get_ydata()) == [10, 20]
    same, other = axis.texts
    assert [same.get_text(), other.get_text()] == ["same", r"\$other"]
    assert same.xy == other.xy == (10, 50.0)
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert not boxes[0].overlaps(boxes[1])
    assert all(box.x1 <= figure.bbox.width for box in boxes)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "10"]
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P" and image.size == (1600, 960)
