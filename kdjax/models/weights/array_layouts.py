"""Layouts of one array in a file and in a tree of variables.

A layout is a pair: `to_file(x)` from the tree's form, and `to_tree(x, shape)` back,
where `shape` is the tree's (only layouts that split an axis read it).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """One way to store an array."""

    to_file: Callable[[np.ndarray], np.ndarray]
    to_tree: Callable[[np.ndarray, Shape], np.ndarray]


def _reshape(x: np.ndarray, shape: Shape) -> np.ndarray:
    return x.reshape(shape)


def _heads_to_tree(x: np.ndarray, shape: Shape) -> np.ndarray:
    return x.T.reshape(shape)


SAME = Layout(lambda x: x, lambda x, shape: x)
# Convolution kernels: [height, width, in, out] here, [out, in, height, width] in torch.
TORCH_CONV = Layout(
    lambda x: x.transpose(3, 2, 0, 1), lambda x, shape: x.transpose(2, 3, 1, 0)
)
# Dense kernels: [in, out] here, [out, in] in torch.
TORCH_DENSE = Layout(lambda x: x.T, lambda x, shape: x.T)
# A vector here with axes of one before it.
VECTOR = Layout(lambda x: x.reshape(-1), _reshape)
# A dense kernel that a file keeps as a 1x1 convolution, JAX's way and torch's.
CONV_1X1 = Layout(lambda x: x[None, None], lambda x, shape: x[0, 0])
TORCH_CONV_1X1 = Layout(
    lambda x: x.T[:, :, None, None], lambda x, shape: x[:, :, 0, 0].T
)
# Attention: [in, heads, size] and [heads, size, out] here, [out, in] in torch.
TORCH_HEADS_IN = Layout(lambda x: x.reshape(x.shape[0], -1).T, _heads_to_tree)
TORCH_HEADS_OUT = Layout(lambda x: x.reshape(-1, x.shape[-1]).T, _heads_to_tree)


def file_shape(layout: Layout, shape: Shape) -> Shape:
    """The shape in the file of an array that has `shape` in the tree.

    >>> file_shape(TORCH_CONV, (3, 3, 16, 32))
    (32, 16, 3, 3)
    """
    return layout.to_file(np.empty(shape, np.bool_)).shape
