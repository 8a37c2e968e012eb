"""Color jitter: brightness, contrast, saturation and hue, drawn, then applied."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.core.types import Array

# ITU-R 601, as in PIL and TensorFlow.
LUMA = (0.299, 0.587, 0.114)


class Jitter(NamedTuple):
    """Factors around 1, and a turn of the hue around 0 as a share of the circle.

    Each `[batch]` float32.
    """

    brightness: Array
    contrast: Array
    saturation: Array
    hue: Array


def draw_jitter(keys: Array, strength: tuple[float, float, float, float]) -> Jitter:
    """One jitter a key: factors uniform in 1 - s to 1 + s, the turn in -h to h.

    keys: `[batch]` keys.
    strength: of brightness, contrast, saturation and hue.
    """
    u = jax.vmap(lambda key: jax.random.uniform(key, (4,), jnp.float32))(keys)
    change = (2.0 * u - 1.0) * jnp.array([strength], jnp.float32)
    return Jitter(
        1.0 + change[:, 0], 1.0 + change[:, 1], 1.0 + change[:, 2], change[:, 3]
    )


def apply_jitter(images: Array, jitter: Jitter) -> Array:
    """Change brightness, contrast, saturation and hue, in this order.

    Every step is cut off at 0 and 255. A gray image has no saturation and no hue.

    images: `[batch, height, width, 1 or 3]` float32, 0 to 255.
    """
    b, c, s, h = (x[:, None, None, None] for x in jitter)
    x = _cut_off(images * b)
    x = blend(mean_gray(x), x, c)
    if images.shape[-1] == 1:
        return x
    return turn_hue(blend(gray(x), x, s), h)


def gray(images: Array) -> Array:
    """The luma `[..., 1]` of RGB images; gray images as they are."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., i : i + 1] * LUMA[i] for i in range(3))
    return red + green + blue


def mean_gray(images: Array) -> Array:
    """The mean luma of each image, `[..., 1, 1, 1]`."""
    return gray(images).mean(axis=(-3, -2, -1), keepdims=True)


def blend(low: Array, images: Array, factor: Array) -> Array:
    """`low + factor * (images - low)`, cut off at 0 and 255."""
    return _cut_off(low + factor * (images - low))


def turn_hue(images: Array, turn: Array) -> Array:
    """RGB images, 0 to 255, with their hue turned by a share of the circle.

    Saturation and value in the sense of HSV stay.
    """
    high = images.max(axis=-1, keepdims=True)
    low = images.min(axis=-1, keepdims=True)
    spread = high - low
    safe = jnp.where(spread > 0, spread, 1.0)
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    # Channels are compared with each other, not with `high`: a compiler may compute one
    # of them twice, with another rounding.
    sixth = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    # How far each channel lies below the highest, by its distance on the circle.
    position = jnp.mod(
        jnp.concatenate([sixth + 5.0, sixth + 3.0, sixth + 1.0], axis=-1) + 6.0 * turn,
        6.0,
    )
    below = jnp.clip(jnp.minimum(position, 4.0 - position), 0.0, 1.0)
    return high - spread * below


def _cut_off(images: Array) -> Array:
    return jnp.clip(images, 0.0, 255.0)
