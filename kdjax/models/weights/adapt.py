"""Arrays that were made for another number of classes, image size or kind of input."""

import math
import re

import jax
import numpy as np

from kdjax.models.weights.array_layouts import Shape

# What may be adapted, and the leaves that each word stands for in this project's
# networks (the names of `ResNetCifar` last).
LEAVES = {
    "head": re.compile(r"params/(head|head_dist|Dense_0)/(kernel|bias)"),
    "position": re.compile(r"params/pos_embedding"),
    "stem": re.compile(
        r"params/(root_block/conv_root|stem_conv|embedding|Conv_0)/kernel"
    ),
}


def role(path: str, adapt: tuple[str, ...]) -> str | None:
    """The word of `adapt` that stands for this leaf, if one does."""
    words = (word for word in adapt if LEAVES[word].fullmatch(path))
    return next(words, None)


def resample_positions(x: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Position embeddings `[1, tokens, width]` for another number of patches.

    Both must be square grids of patches behind the same 1 or 2 tokens, which are kept;
    the grid is resampled bicubically. None where they are not.
    """
    if x.ndim != 3 or x.shape[::2] != tuple(shape)[::2]:
        return None
    for tokens in (1, 2):
        old, new = (math.isqrt(n - tokens) for n in (x.shape[1], shape[1]))
        if old**2 + tokens == x.shape[1] and new**2 + tokens == shape[1]:
            grid = x[:, tokens:].reshape(1, old, old, -1)
            grid = jax.image.resize(grid, (1, new, new, shape[2]), "bicubic")
            grid = np.asarray(grid).reshape(1, new**2, -1)
            return np.concatenate([x[:, :tokens], grid], 1)
    return None


def adapt_stem(x: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A first kernel `[height, width, in, out]` for other channels or another side.

    To 1 channel the kernel is summed over them, so that a gray image gives what it gave
    as equal channels; to any other number the channels are repeated in turn and scaled
    by old / new. Another side is resampled bilinearly and scaled by old / new area, so
    that the output for a constant image stays. None where `out` differs.
    """
    if x.ndim != 4 or x.shape[3] != shape[3]:
        return None
    if x.shape[2] != shape[2]:
        x = _other_channels(x, shape[2])
    if x.shape[:2] != tuple(shape[:2]):
        scale = math.prod(x.shape[:2]) / math.prod(shape[:2])
        x = np.asarray(jax.image.resize(x, shape, "bilinear")) * np.float32(scale)
    return x


def _other_channels(x: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1:
        return x.sum(2, keepdims=True)
    old = x.shape[2]
    repeated = np.take(x, np.arange(channels) % old, axis=2)
    return repeated * np.float32(old / channels)
