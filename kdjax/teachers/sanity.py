"""Sanity checks of a teacher from its outputs for a few labeled images."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

# A permutation counts from this accuracy on, and where it gains as much.
_LEAST, _GAIN = 0.5, 0.2
# Images of each class, on average, that tell one permutation from chance.
_IMAGES = 4


class Permutation(NamedTuple):
    """An order of the classes under which a teacher is right far more often.

    order: the teacher's class of each label.
    accuracy: under this order.
    """

    order: np.ndarray
    accuracy: float


def spread_sample(count: int, size: int) -> np.ndarray:
    """Indices of an evenly spread sample, in order: all where `size` is enough.

    One index is drawn from each of `size` equal parts, always the same. An evenly
    spaced one would meet a single class where labels take turns.

    >>> spread_sample(3, 8)
    array([0, 1, 2])
    """
    if count <= size:
        return np.arange(count)
    edges = np.linspace(0, count, size + 1).astype(int)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


def are_probabilities(outputs: np.ndarray) -> bool:
    """True for rows within [0, 1] that sum to 1: the outputs of a softmax.

    outputs: `[..., classes]`.

    >>> are_probabilities(np.array([[0.25, 0.75]])), are_probabilities(np.ones((1, 2)))
    (True, False)
    """
    # In half precision the sum of many classes has an error of its own.
    outputs = np.asarray(outputs, np.float32)
    within = (outputs >= 0).all() and (outputs <= 1).all()
    return bool(within and np.abs(outputs.sum(-1) - 1).max() < 1e-2)


def find_permutation(outputs: np.ndarray, labels: np.ndarray) -> Permutation | None:
    """The order of a teacher's classes, where it is clearly another than the labels'.

    Args:
      outputs: `[examples, classes]`.
      labels: `[examples]`, in [0, classes).

    >>> outputs = np.eye(3)[[1, 0, 2] * 4]
    >>> find_permutation(outputs, np.array([0, 1, 2] * 4)).order
    array([1, 0, 2])
    """
    classes = outputs.shape[-1]
    if len(labels) < _IMAGES * classes:
        return None
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, outputs.argmax(-1)), 1)
    rows, order = linear_sum_assignment(-counts)
    before = np.trace(counts) / len(labels)
    after = counts[rows, order].sum() / len(labels)
    if after < _LEAST or after < before + _GAIN:
        return None
    return Permutation(order, float(after))
