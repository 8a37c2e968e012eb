"""The picture of views: its pixels are the views."""

import numpy as np
import pytest
from PIL import Image

from kdjax.reports.view_grid import write_views


def test_every_view_is_in_the_picture(tmp_path):
    """Views of one colour each: all these colours, and no others, fill large areas."""
    levels = np.linspace(-1, 1, 5)
    student = np.broadcast_to(levels[:, None, None, None], (5, 6, 6, 1))
    teacher = np.zeros((5, 8, 8, 3), np.uint8)
    teacher[:, :, :, 0] = (np.arange(5) * 50)[:, None, None]
    path = tmp_path / "views.png"
    write_views(
        path,
        [("teacher", teacher), ("student $x$", student)],
        captions=[f"class {i}" for i in range(5)],
        lines=["5 examples", "channel mean 0.5"],
        counts=np.array([3, 1, 1]),
    )
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for want in (0, 64, 128, 191, 255):
        assert (pixels == want).all(axis=-1).sum() > 3_000
    for i in range(1, 5):
        assert (pixels == [50 * i, 0, 0]).all(axis=-1).sum() > 3_000
    assert (pixels == [60, 0, 0]).all(axis=-1).sum() == 0


def test_notes_stand_below_the_images_of_their_row(tmp_path):
    """White views: all that is dark in their columns is what is written."""
    rows = [(name, np.full((3, 8, 8, 1), 255, np.uint8)) for name in ("a", "b")]
    dark = {}
    for name, notes in {"without": None, "with": {"b": ["7: 99 %"] * 3}}.items():
        path = tmp_path / f"{name}.png"
        write_views(path, rows, notes=notes)
        pixels = np.asarray(Image.open(path).convert("L"))[:, 80:] < 100
        dark[name] = np.flatnonzero(pixels.any(axis=1))
        height = len(pixels)
    assert len(dark["without"]) == 0
    # Below the second row, which ends in the lower half.
    assert len(dark["with"]) > 0 and dark["with"].min() > height / 2


def test_rows_of_different_lengths_are_refused(tmp_path):
    rows = [("a", np.zeros((2, 4, 4, 1), np.uint8)), ("b", np.zeros((3, 4, 4, 1)))]
    with pytest.raises(ValueError, match="rows: expected as many images in each row"):
        write_views(tmp_path / "x.png", rows)
    with pytest.raises(ValueError, match="rows: expected as many images"):
        write_views(tmp_path / "x.png", [])
    assert not list(tmp_path.iterdir())
