"""RandAugment (Cubuk et al., arXiv 1909.13719) on the device: n random operations each.

The paper's 14 operations. Each image draws its own; signs are drawn too. Magnitudes run
from 0 (nothing, except for the operations that have none) to 10:

    rotate           30 degrees            posterize    8 to 4 bits a channel
    shear x, y       0.3                   solarize     values from 255 down to 0
    translate x, y   0.45 of the side      color, contrast, brightness, sharpness
                                           by 1 - 0.9 to 1 + 0.9 times

What comes in from outside the image is middle gray. Left out: what later versions added
to the list (invert, cutout, solarize-add). An image goes through all operations of its
batch and keeps one: cheap on an accelerator, slow on CPU.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.augment import color
from kdjax.core.types import Array

LARGEST = 10
MIDDLE = 127.5


class Operations(NamedTuple):
    """The RandAugment operations of each image, in order.

    which: `[batch, n]` int32, an index into `NAMES`.
    level: `[batch, n]` float32 in [-1, 1], signed share of the largest magnitude.
    """

    which: Array
    level: Array


def draw_operations(keys: Array, count: int, magnitude: int) -> Operations:
    """`count` operations a key, each any of the list, with either sign.

    keys: `[batch]` keys.
    """

    def one(key: Array) -> tuple[Array, Array]:
        which_key, sign_key = jax.random.split(key)
        which = jax.random.randint(which_key, (count,), 0, len(NAMES))
        sign = jnp.where(jax.random.bernoulli(sign_key, shape=(count,)), 1.0, -1.0)
        return which, sign * jnp.float32(magnitude / LARGEST)

    return Operations(*jax.vmap(one)(keys))


def apply_operations(images: Array, operations: Operations) -> Array:
    """Apply the operations drawn for each image.

    images: `[batch, height, width, 1 or 3]` float32, 0 to 255.
    """

    branches = [*_COLORS.values(), _identity]

    def one(image: Array, which: Array, level: Array) -> Array:
        for i in range(which.shape[0]):
            moves = which[i] >= len(_COLORS)
            moved = _warp(image, _map_of(which[i] - len(_COLORS), level[i], image))
            branch = jnp.minimum(which[i], len(_COLORS))
            recolored = jax.lax.switch(branch, branches, image, level[i])
            image = jnp.where(moves, moved, recolored)
        return image

    return jax.vmap(one)(images, operations.which, operations.level)


def _identity(image: Array, level: Array) -> Array:
    return image


def _auto_contrast(image: Array, level: Array) -> Array:
    low = image.min(axis=(0, 1), keepdims=True)
    spread = image.max(axis=(0, 1), keepdims=True) - low
    stretched = (image - low) * (255.0 / jnp.where(spread > 0, spread, 1.0))
    return jnp.where(spread > 0, stretched, image)


def _equalize(image: Array, level: Array) -> Array:
    """Each channel through its own cumulative histogram, as PIL does it."""

    def channel(x: Array) -> Array:
        values = jnp.round(x).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[values.reshape(-1)].add(1)
        used = counts > 0
        last = jnp.max(jnp.where(used, jnp.arange(256), 0))
        step = (counts.sum() - counts[last]) // 255
        table = (jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1)
        table = jnp.clip(table, 0, 255)
        flat = (step == 0) | (used.sum() <= 1)
        return jnp.where(flat, x, table[values].astype(x.dtype))

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def _posterize(image: Array, level: Array) -> Array:
    dropped = jnp.round(4.0 * jnp.abs(level))
    step = 2.0**dropped
    return jnp.floor(jnp.round(image) / step) * step


def _solarize(image: Array, level: Array) -> Array:
    limit = 255.0 * (1.0 - jnp.abs(level))
    return jnp.where(image > limit, 255.0 - image, image)


def _blended(low_of: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda image, level: color.blend(low_of(image), image, 1.0 + 0.9 * level)


def _smooth(image: Array) -> Array:
    """PIL's smoothing: 3x3, the middle 5 times as heavy; the border stays."""
    height, width, _ = image.shape
    rows = image[:-2] + image[1:-1] + image[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = (total + 4.0 * image[1:-1, 1:-1]) / 13.0
    return image.at[1 : height - 1, 1 : width - 1].set(inner)


def _warp(image: Array, matrix: Array) -> Array:
    """Move the pixels: bilinear, middle gray from outside.

    matrix: `[2, 3]`; the pixel at (y, x) from the center of the result is the one at
        `matrix @ (y, x, 1)` from the center of the image.
    """
    height, width, _ = image.shape
    (a, b, c), (d, e, f) = ([row[i] for i in range(3)] for row in matrix)
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    coordinates = [
        a * y + b * x + c + (height - 1) / 2,
        d * y + e * x + f + (width - 1) / 2,
    ]

    def channel(pixels: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(
            pixels, coordinates, order=1, mode="constant", cval=MIDDLE
        )

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def _map_of(which: Array, level: Array, image: Array) -> Array:
    """The matrix of one of `_MOVES` at a level; the first one's where there is none."""
    height, width, _ = image.shape
    cos, sin = jnp.cos(level * jnp.pi / 6), jnp.sin(level * jnp.pi / 6)
    zero, one, shear = 0.0 * level, 1.0 + 0.0 * level, 0.3 * level
    across, down = 0.45 * level * width, 0.45 * level * height
    maps = {
        "rotate": [cos, -sin, zero, sin, cos, zero],
        "shear x": [one, zero, zero, shear, one, zero],
        "shear y": [one, shear, zero, zero, one, zero],
        "translate x": [one, zero, zero, zero, one, across],
        "translate y": [one, zero, down, zero, one, zero],
    }
    table = jnp.array([maps[name] for name in _MOVES])
    return table[jnp.maximum(which, 0)].reshape(2, 3)


_COLORS: dict[str, Callable[[Array, Array], Array]] = {
    "identity": _identity,
    "auto contrast": _auto_contrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "color": _blended(color.gray),
    "contrast": _blended(color.mean_gray),
    "brightness": _blended(jnp.zeros_like),
    "sharpness": _blended(_smooth),
}
_MOVES = ("rotate", "shear x", "shear y", "translate x", "translate y")
NAMES = (*_COLORS, *_MOVES)
