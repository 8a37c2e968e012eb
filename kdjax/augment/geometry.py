"""Crop, resize and flip: drawn as small values, then applied to images of any size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.core.types import Array


class Crop(NamedTuple):
    """Where to look in each image, in shares of its height and width.

    box: `[batch, 4]` float32 (top, left, height, width), each in [0, 1].
    flip: `[batch]` bool, mirror left to right.
    """

    box: Array
    flip: Array


def whole_image(batch: int) -> Crop:
    """The crop that keeps everything."""
    box = jnp.broadcast_to(jnp.array([[0.0, 0.0, 1.0, 1.0]], jnp.float32), (batch, 4))
    return Crop(box, jnp.zeros((batch,), bool))


def draw_crops(
    keys: Array,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    image_size: tuple[int, int],
) -> Crop:
    """One inception crop a key (Szegedy et al., arXiv 1409.4842).

    The aspect ratio is uniform over the part of its range for which the smallest area
    fits into the image, the area uniform over the part of its range that fits at that
    aspect ratio, the place uniform.

    keys: `[batch]` keys.
    area: smallest and largest share of the image, 0 < low <= high <= 1.
    aspect: smallest and largest width/height in pixels.
    image_size: (height, width) of the images in pixels.
    """
    height, width = image_size
    # Width over height in shares of the image: what has to fit into a unit square.
    low = max(aspect[0] * height / width, area[0])
    high = max(min(aspect[1] * height / width, 1 / area[0]), low)

    def one(key: Array) -> tuple[Array, Array]:
        u = jax.random.uniform(key, (5,), jnp.float32)
        ratio = low + u[0] * (high - low)
        largest = jnp.minimum(jnp.minimum(ratio, 1 / ratio), area[1])
        share = area[0] + u[1] * jnp.maximum(largest - area[0], 0.0)
        h = jnp.minimum(jnp.sqrt(share / ratio), 1.0)
        w = jnp.minimum(jnp.sqrt(share * ratio), 1.0)
        box = jnp.stack([u[2] * (1 - h), u[3] * (1 - w), h, w])
        return box, jnp.logical_and(flip, u[4] < 0.5)

    return Crop(*jax.vmap(one)(keys))


def apply_crops(images: Array, crop: Crop, size: tuple[int, int]) -> Array:
    """Cut each box out, resize it to `size` (bilinear, no antialias), flip.

    images: `[batch, height, width, channels]`, any real dtype.
    Returns `[batch, *size, channels]` float32 in the units of `images`.
    """
    n, height, width, channels = images.shape
    if crop.box.shape != (n, 4):
        raise ValueError(f"crop.box: expected {(n, 4)}, got {crop.box.shape}")
    shape = (*size, channels)

    def one(image: Array, box: Array) -> Array:
        pixels = box * jnp.array([height, width, height, width], jnp.float32)
        scale = jnp.array(size, jnp.float32) / pixels[2:]
        return jax.image.scale_and_translate(
            image, shape, (0, 1), scale, -pixels[:2] * scale, "linear", antialias=False
        )

    cut = jax.vmap(one)(images.astype(jnp.float32), crop.box)
    mirrored = jnp.flip(cut, axis=2)
    return jnp.where(crop.flip[:, None, None, None], mirrored, cut)


def normalise(images: Array) -> Array:
    """Pixels 0..255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0
