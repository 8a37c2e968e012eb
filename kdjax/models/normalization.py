"""Normalization of the pixels of a network's input; every view comes in [-1, 1]."""

from typing import get_args

import jax.numpy as jnp

from kdjax import config as configs
from kdjax.core.types import Array, Model

# Mean and standard deviation of the channels, in shares of the brightest pixel.
SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "symmetric": ((0.5,), (0.5,)),
    "unit": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,)),
}
assert set(SCALES) == set(get_args(configs.Normalization))


def normalize_inputs(model: Model, name: str, field: str = "model") -> Model:
    """`model` with its inputs normalized as in its training.

    name: "symmetric" leaves them in [-1, 1]; "unit" makes them 0 to 1; "imagenet",
        "cifar10" and "cifar100" standardize each channel as the published networks of
        these sets expect; "caffe" is 0 to 255 less the mean of ImageNet, in RGB order.

    field: the name of the model's config in errors.

    The model raises ConfigError naming `field.normalization` where images have another
    number of channels than the scale.
    """
    if name == "symmetric":
        return model
    mean, std = (jnp.array(x, jnp.float32).reshape(1, 1, 1, -1) for x in SCALES[name])

    def normalize(images: Array) -> Array:
        channels = max(mean.size, std.size)
        if images.shape[-1] != channels and channels > 1:
            expected = f"images of {channels} channels for {name!r}"
            configs.require(False, f"{field}.normalization", expected, images.shape[-1])
        return ((images + 1) / 2 - mean) / std

    def init(key, images):
        return model.init(key, normalize(images))

    def apply(variables, images, *, train=False, rngs=None):
        return model.apply(variables, normalize(images), train=train, rngs=rngs)

    return Model(init, apply)
