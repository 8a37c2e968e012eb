"""A picture of views: images as stored and as augmented, with their top-k classes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdjax.core import runlog

# Inches: a view, and a line of text.
_SIDE, _LINE = 1.25, 0.17


def write_views(
    path: runlog.Path,
    rows: Sequence[tuple[str, np.ndarray]],
    *,
    captions: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
    lines: Sequence[str] = (),
    counts: np.ndarray | None = None,
) -> None:
    """Write a PNG with a column for each example and a row for each kind of view.

    Args:
      path: of the PNG.
      rows: (name, images) from top to bottom, such as stored, teacher and student;
        images `[n, height, width, 1 or 3]`, uint8, or floating in [-1, 1]. Rows may
        differ in height and width.
      captions: a text above each column, such as its label.
      notes: by row, a text below each of its images.
      lines: text below, such as the statistics of the set.
      counts: `[classes]` examples of each class, drawn as bars next to the text.

    Raises:
      ValueError: rows with different numbers of images, or no rows.
    """
    columns = {len(images) for _, images in rows}
    if len(columns) != 1 or 0 in columns:
        got = {name: len(images) for name, images in rows}
        raise ValueError(f"rows: expected as many images in each row, got {got}")
    (n,) = columns
    below = max(_LINE * (len(lines) + 1), 1.3 if counts is not None else 0.3)
    width = max(_SIDE * (n + 0.6), 5.0)
    noted = 0.3 + 2 * _LINE * len(notes or {})
    figure = Figure(figsize=(width, _SIDE * len(rows) + below + noted), dpi=110)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    heights = [_SIDE * len(rows) + noted, below]
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    views, below_views = parts
    axes = views.subplots(len(rows), n, squeeze=False)
    for (name, images), row in zip(rows, axes, strict=True):
        for image, axis in zip(images, row, strict=True):
            _show(axis, image)
        height, wide = images.shape[1:3]
        row[0].set_ylabel(f"{_plain(name)}\n{height}x{wide}", fontsize=8)
        for note, axis in zip((notes or {}).get(name, ()), row, strict=False):
            axis.set_xlabel(_plain(note), fontsize=7)
    for caption, axis in zip(captions, axes[0], strict=False):
        axis.set_title(_plain(caption), fontsize=8)
    has_bars = counts is not None and len(counts) > 0
    text, *bars = below_views.subplots(1, 2 if has_bars else 1, squeeze=False)[0]
    text.axis("off")
    text.text(0, 1, _plain("\n".join(lines)), va="top", fontsize=8)
    if counts is not None and bars:
        _show_counts(bars[0], counts)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    runlog.write_bytes(path, content.getvalue())


def _show(axis: Axes, image: np.ndarray) -> None:
    pixels = image
    if image.dtype != np.uint8:
        scaled = (np.asarray(image, np.float64) + 1.0) * 127.5
        pixels = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    axis.imshow(pixels, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _show_counts(axis: Axes, counts: np.ndarray) -> None:
    axis.bar(np.arange(len(counts)), counts, width=1.0, color="#0072B2")
    axis.set_ylim(0, max(int(counts.max()), 1) * 1.1)
    axis.set_title("examples a class", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """A text as it is: matplotlib reads `$` as a formula."""
    return text.replace("$", r"\$")
