"""Statistics of a data set: channels, classes, sizes."""

from typing import NamedTuple

import numpy as np

from kdjax.data.source import Source, load


class Statistics(NamedTuple):
    """Statistics of a data set.

    examples: their number; `decoded` of them were decoded for the other fields.
    mean, std: `[channels]` of the pixels at the source's shape, in [0, 1].
    counts: `[classes]` examples with each label.
    unlabeled: examples without a label.
    sizes: `[3, 2]` smallest, median and largest (height, width) before resizing.
    """

    examples: int
    decoded: int
    mean: np.ndarray
    std: np.ndarray
    counts: np.ndarray
    unlabeled: int
    sizes: np.ndarray


def describe(source: Source, at_most: int = 10_000) -> Statistics:
    """Count the labels of all examples, and measure the pixels of up to `at_most`,
    evenly spread over the set.
    """
    n = len(source)
    indices = np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))
    total = np.zeros(source.shape[2])
    squares = np.zeros(source.shape[2])
    sizes = np.zeros((len(indices), 2), int)
    for row, index in enumerate(indices):
        image, sizes[row] = load(source, int(index))
        pixels = image.astype(np.float64) / 255
        total += pixels.mean(axis=(0, 1))
        squares += (pixels**2).mean(axis=(0, 1))
    mean = total / len(indices)
    return Statistics(
        examples=n,
        decoded=len(indices),
        mean=mean,
        std=np.sqrt(np.maximum(squares / len(indices) - mean**2, 0)),
        counts=np.bincount(source.labels[source.labels >= 0], minlength=source.classes),
        unlabeled=int((source.labels < 0).sum()),
        sizes=np.stack(
            [sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)]
        ),
    )


def format_statistics(statistics: Statistics) -> list[str]:
    """A line of text for each statistic."""
    lines = [f"{statistics.examples} examples, {len(statistics.counts)} classes"]
    if statistics.unlabeled:
        lines.append(f"{statistics.unlabeled} without a label")
    if len(statistics.counts):
        low, high = int(statistics.counts.min()), int(statistics.counts.max())
        lines.append(f"examples a class: {low} to {high}")
    low, middle, high = ("x".join(f"{x:.0f}" for x in row) for row in statistics.sizes)
    same = low == high
    lines.append(f"size {low}" if same else f"sizes {low} to {high}, median {middle}")
    for name, values in (("mean", statistics.mean), ("std", statistics.std)):
        lines.append(f"channel {name} " + " ".join(f"{x:.4f}" for x in values))
    if statistics.decoded < statistics.examples:
        lines.append(f"(pixels and sizes of {statistics.decoded} examples)")
    return lines
