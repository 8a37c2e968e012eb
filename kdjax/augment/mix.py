"""Mixup (Zhang et al., arXiv 1710.09412) in the paper's extreme form, and cutmix."""

import jax
import jax.numpy as jnp

from kdjax.core import collectives, keys
from kdjax.core.types import Array


def draw_mix(seed: int | Array, step: int | Array) -> Array:
    """The one coefficient of a batch, uniform on [0, 1] (= Beta(1, 1))."""
    key = keys.step_key(seed, "mix", step)
    return jax.random.uniform(key, (), jnp.float32)


def draw_box(seed: int | Array, step: int | Array, weight: Array) -> Array:
    """The one box of a batch for cutmix (Yun et al., arXiv 1905.04899).

    Its sides are `sqrt(1 - weight)` of the image's, its center is uniform over the
    image, and what reaches beyond the image is cut off.

    Returns `[4]` float32 (top, left, height, width) in shares of the image.
    """
    key = keys.step_key(seed, "cutmix", step)
    center = jax.random.uniform(key, (2,), jnp.float32)
    half = jnp.sqrt(1.0 - weight) / 2
    start = jnp.clip(center - half, 0.0, 1.0)
    return jnp.concatenate([start, jnp.clip(center + half, 0.0, 1.0) - start])


def share_kept(box: Array) -> Array:
    """The share of an image that a box does not cover: the weight of its label."""
    return 1.0 - box[2] * box[3]


def partners(x: Array, axis_name: str | None = None) -> Array:
    """The row that each row is mixed with: its neighbor in the global batch."""
    return collectives.roll_one(x, axis_name)


def apply_mix(images: Array, weight: Array, axis_name: str | None = None) -> Array:
    """`weight * images + (1 - weight) * partners(images)`."""
    return weight * images + (1.0 - weight) * partners(images, axis_name)


def apply_box(images: Array, box: Array, axis_name: str | None = None) -> Array:
    """The pixels of `partners(images)` whose centers lie in the box, else `images`.

    images: `[batch, height, width, channels]`.
    """

    def inside(count: int, start: Array, length: Array) -> Array:
        center = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
        return (center >= start) & (center < start + length)

    rows = inside(images.shape[1], box[0], box[2])
    columns = inside(images.shape[2], box[1], box[3])
    covered = (rows[:, None] & columns[None, :])[None, :, :, None]
    return jnp.where(covered, partners(images, axis_name), images)
