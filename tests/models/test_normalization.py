"""Each network sees pixels on the scale it was trained on."""

import jax
import numpy as np
import pytest

from kdjax.core.types import Model, Output
from kdjax.models.normalization import normalize_inputs


def echo():
    """A model that answers with its images."""

    def apply(variables, images, *, train=False, rngs=None):
        return Output(images.reshape(len(images), -1), {}), {}

    return Model(lambda key, images: {"params": {}, "seen": images}, apply)


def seen(pixels, values):
    """What a model on this scale gets for these pixels, 0 to 255."""
    images = np.asarray(values, np.float32).reshape(1, 1, 1, -1) / 127.5 - 1
    output, _ = normalize_inputs(echo(), pixels).apply({}, images)
    also = normalize_inputs(echo(), pixels).init(jax.random.key(0), images)["seen"]
    np.testing.assert_array_equal(also.reshape(1, -1), output.logits)
    return output.logits[0]


@pytest.mark.parametrize(
    "pixels, values, expected",
    [
        ("symmetric", [0, 255, 127.5], [-1, 1, 0]),
        ("unit", [0, 255, 51], [0, 1, 0.2]),
        ("unit", [51], [0.2]),
        # torchvision: (x / 255 - mean) / std.
        ("imagenet", [0, 0, 0], [-2.117904, -2.035714, -1.804444]),
        ("imagenet", [255, 255, 255], [2.248908, 2.428571, 2.64]),
        ("cifar10", [255, 0, 128], [2.059109, -1.980287, 0.211975]),
        # Keras, mode "caffe", before it turns RGB into BGR: x - mean.
        ("caffe", [123.68, 255, 0], [0, 138.221, -103.939]),
    ],
)
def test_scales(pixels, values, expected):
    np.testing.assert_allclose(seen(pixels, values), expected, rtol=1e-4, atol=2e-5)


def test_the_number_of_channels_must_fit():
    with pytest.raises(ValueError, match="normalization: expected images of 3 .*got 1"):
        seen("imagenet", [3])
