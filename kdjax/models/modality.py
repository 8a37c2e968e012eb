"""Modalities of one image: a network of gray levels, or of edges, under color."""

from typing import get_args

import jax.numpy as jnp

from kdjax import config as configs
from kdjax.core.numerics import safe_norm
from kdjax.core.types import Array, Model

# Luminance of red, green and blue, ITU-R BT.601.
_LUMINANCE = (0.299, 0.587, 0.114)
# Differences of two values in [-1, 1], halved, have a norm of at most this.
_LARGEST = 2**0.5


def to_gray(images: Array) -> Array:
    """Luminance of color images; gray images stay.

    `[batch, height, width, 1 or 3]` in [-1, 1] to `[batch, height, width, 1]` in
    [-1, 1].

    Raises ValueError for another number of channels.
    """
    channels = images.shape[-1]
    if channels == 1:
        return images
    if channels != len(_LUMINANCE):
        raise ValueError(f"images: expected 1 or 3 channels, got {channels}")
    weights = jnp.asarray(_LUMINANCE, images.dtype).reshape(1, 1, 1, -1)
    return jnp.sum(images * weights, axis=-1, keepdims=True)


def to_edges(images: Array) -> Array:
    """Edges: the norm of the gradient of the gray levels, by central differences.

    `[batch, height, width, 1 or 3]` in [-1, 1] to `[batch, height, width, 1]`: -1
    where the image is flat, and 1 at the steepest edge. Borders are repeated.

    Raises ValueError for another number of channels.
    """
    gray = to_gray(images)
    padded = jnp.pad(gray, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    steepness = safe_norm(jnp.concatenate([down, across], -1) / 2, -1, keepdims=True)
    return 2 * steepness / _LARGEST - 1


_MODALITIES = {"gray": to_gray, "edges": to_edges}
assert {"image", *_MODALITIES} == set(get_args(configs.Modality))


def view_modality(model: Model, name: str, field: str = "model") -> Model:
    """`model` with one modality of each image as its input.

    name: "image" leaves images as they are; "gray" and "edges" have one channel.
    field: the name of the model's config in errors.

    The model raises ConfigError naming `field.modality` for images without one.
    """
    if name == "image":
        return model
    convert = _MODALITIES[name]

    def view(images: Array) -> Array:
        channels = images.shape[-1]
        expected = f"images of 1 or 3 channels for {name!r}"
        configs.require(channels in (1, 3), f"{field}.modality", expected, channels)
        return convert(images)

    def init(key, images):
        return model.init(key, view(images))

    def apply(variables, images, *, train=False, rngs=None):
        return model.apply(variables, view(images), train=train, rngs=rngs)

    return Model(init, apply)
