"""Crop, resize and flip: drawn as small values, then applied to images of any size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.core.types import Array


class Crop(NamedTuple):
    """Crops of a batch: a box in shares of each image's height and width, and a flip.

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
    image_size: tuple[int, int] | Array,
) -> Crop:
    """One inception crop a key (Szegedy et al., arXiv 1409.4842).

    The aspect ratio is uniform over the part of its range for which the smallest area
    fits into the image, the area uniform over the part of its range that fits at that
    aspect ratio, the position uniform.

    keys: `[batch]` keys.
    area: smallest and largest share of the image, 0 < low <= high <= 1.
    aspect: smallest and largest width/height in pixels.
    image_size: (height, width) of the images in pixels, one for all or `[batch, 2]`.
    """

    def one(key: Array, low: Any, high: Any) -> tuple[Array, Array]:
        u = jax.random.uniform(key, (5,), jnp.float32)
        ratio = low + u[0] * (high - low)
        largest = jnp.minimum(jnp.minimum(ratio, 1 / ratio), area[1])
        share = area[0] + u[1] * jnp.maximum(largest - area[0], 0.0)
        h = jnp.minimum(jnp.sqrt(share / ratio), 1.0)
        w = jnp.minimum(jnp.sqrt(share * ratio), 1.0)
        box = jnp.stack([u[2] * (1 - h), u[3] * (1 - w), h, w])
        return box, jnp.logical_and(flip, u[4] < 0.5)

    # Width over height in shares of the image: what has to fit into a unit square.
    if isinstance(image_size, tuple):
        height, width = image_size
        low = max(aspect[0] * height / width, area[0])
        high = max(min(aspect[1] * height / width, 1 / area[0]), low)
        return Crop(*jax.vmap(lambda key: one(key, low, high))(keys))
    if image_size.shape != (len(keys), 2):
        expected = (len(keys), 2)
        raise ValueError(
            f"image_size: expected shape {expected}, got {image_size.shape}"
        )
    sides = jnp.asarray(image_size, jnp.float32)
    square = sides[:, 0] / sides[:, 1]
    low = jnp.maximum(aspect[0] * square, area[0])
    high = jnp.maximum(jnp.minimum(aspect[1] * square, 1 / area[0]), low)
    return Crop(*jax.vmap(one)(keys, low, high))


def draw_mild_crops(keys: Array, *, share: float, flip: bool) -> Crop:
    """One random crop a key with `share` of height and width, anywhere in the image:
    what is left after resizing to R and cutting out C pixels, with `share = C / R`.

    keys: `[batch]` keys. share: in (0, 1].
    """

    def one(key: Array) -> tuple[Array, Array]:
        u = jax.random.uniform(key, (3,), jnp.float32)
        start = u[:2] * (1 - share)
        box = jnp.concatenate([start, jnp.full(2, share, jnp.float32)])
        return box, jnp.logical_and(flip, u[2] < 0.5)

    return Crop(*jax.vmap(one)(keys))


def central_image(batch: int, share: float) -> Crop:
    """The crop of the middle that has `share` of height and width.

    >>> print(central_image(1, 0.5).box)
    [[0.25 0.25 0.5  0.5 ]]
    """
    start = (1 - share) / 2
    box = jnp.array([[start, start, share, share]], jnp.float32)
    return Crop(jnp.broadcast_to(box, (batch, 4)), jnp.zeros((batch,), bool))


def central_crops(sizes: Array, *, resize: int, crop: int) -> Crop:
    """The paper's view for evaluation, as boxes: what is left of an image whose smaller
    side was resized to `resize` pixels, after its central square of `crop` was cut out.

    sizes: `[batch, 2]` (height, width) of the images in pixels.

    >>> import numpy as np
    >>> sizes = np.array([[100, 200]])
    >>> print(central_crops(sizes, resize=100, crop=50).box)
    [[0.25  0.375 0.5   0.25 ]]
    """
    if not 0 < crop <= resize:
        raise ValueError(f"crop: expected 1 to {resize} pixels, got {crop}")
    sides = jnp.asarray(sizes, jnp.float32)
    scaled = jnp.round(sides * (resize / sides.min(axis=1, keepdims=True)))
    start = jnp.floor((scaled - crop) / 2) / scaled
    box = jnp.concatenate([start, crop / scaled], axis=1)
    return Crop(box, jnp.zeros(box.shape[:1], bool))


def apply_crops(
    images: Array,
    crop: Crop,
    size: tuple[int, int],
    method: str = "linear",
    antialias: bool = False,
) -> Array:
    """Cut each box out, resize it to `size`, flip.

    images: `[batch, height, width, channels]`, any real dtype.
    method: "linear", "cubic" or "lanczos3".
    antialias: average over the pixels that fall onto one where the box is made smaller.
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
            image,
            shape,
            (0, 1),
            scale,
            -pixels[:2] * scale,
            method,
            antialias=antialias,
        )

    cut = jax.vmap(one)(images.astype(jnp.float32), crop.box)
    if method != "linear":
        # These overshoot at edges.
        cut = jnp.clip(cut, 0.0, 255.0)
    mirrored = jnp.flip(cut, axis=2)
    return jnp.where(crop.flip[:, None, None, None], mirrored, cut)


def normalize(images: Array) -> Array:
    """Pixels 0..255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0
