"""Weights and images made by rule, so that no reference has to store them.

NumPy alone: used by the tests, and by `make.py` where torch is.
"""

import zlib

import numpy as np

CLASSES = 10


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array that PyTorch's network has under `name`, drawn by the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    x = rng.standard_normal(shape, np.float32)
    if name.endswith(("token", "pos_embed")):
        return x / 2
    if len(shape) == 1:
        return x / 10
    return x * np.float32((2 / np.prod(shape[1:])) ** 0.5)


def images(side: int) -> np.ndarray:
    """One image `[1, side, side, 3]` of normal noise."""
    return np.random.default_rng(side).standard_normal((1, side, side, 3), np.float32)
