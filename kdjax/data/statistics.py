"""What a data set looks like in numbers: channels, classes, sizes."""

from typing import NamedTuple

import numpy as np

from kdjax.data.source import Source, load


class Statistics(NamedTuple):
    """A data set in numbers.

    examples: how many there are; `looked_at` of them were decoded for the rest.
    mean, std: `[channels]` of the pixels at the source's shape, in [0, 1].
    counts: `[classes]` examples with each label.
    unlabelled: examples without a label.
    sizes: `[3, 2]` smallest, median and largest (height, width) before resizing.
    """

    examples: int
    looked_at: int
    mean: np.ndarray
    std: np.ndarray
    counts: np.ndarray
    unlabelled: int
    sizes: np.ndarray


def describe(source: Source, at_most: int = 10_000) -> Statistics:
    """Count the labels of all examples, and measure the pixels of up to `at_most`,
    evenly spread over the set.
    """
    n = len(source)
    places = np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))
    total = np.zeros(source.shape[2])
    squares = np.zeros(source.shape[2])
    sizes = np.zeros((len(places), 2), int)
    for row, place in enumerate(places):
        image, sizes[row] = load(source, int(place))
        pixels = image.astype(np.float64) / 255
        total += pixels.mean(axis=(0, 1))
        squares += (pixels**2).mean(axis=(0, 1))
    mean = total / len(places)
    return Statistics(
        examples=n,
        looked_at=len(places),
        mean=mean,
        std=np.sqrt(np.maximum(squares / len(places) - mean**2, 0)),
        counts=np.bincount(source.labels[source.labels >= 0], minlength=source.classes),
        unlabelled=int((source.labels < 0).sum()),
        sizes=np.stack(
            [sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0)]
        ),
    )


def in_words(found: Statistics) -> list[str]:
    """A line for each thing worth knowing."""
    lines = [f"{found.examples} examples, {len(found.counts)} classes"]
    if found.unlabelled:
        lines.append(f"{found.unlabelled} without a label")
    if len(found.counts):
        low, high = int(found.counts.min()), int(found.counts.max())
        lines.append(f"examples a class: {low} to {high}")
    low, middle, high = ("x".join(f"{x:.0f}" for x in row) for row in found.sizes)
    same = low == high
    lines.append(f"size {low}" if same else f"sizes {low} to {high}, median {middle}")
    for name, values in (("mean", found.mean), ("std", found.std)):
        lines.append(f"channel {name} " + " ".join(f"{x:.4f}" for x in values))
    if found.looked_at < found.examples:
        lines.append(f"(pixels and sizes of {found.looked_at} examples)")
    return lines
