"""Published weights do with our networks what they are known to do.

Needs CIFAR-10 as TFDS keeps it, the ResNets for CIFAR in the folder that KDJAX_WEIGHTS
names, and what `python -m tests.models.reference.fetch` fetches.
"""

import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdjax.models.efficientnet_lite import EfficientNetLite
from kdjax.models.resnet import ResNet
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.weights import load_weights
from tests.models.reference import fetch

pytestmark = pytest.mark.data
WEIGHTS = pathlib.Path(os.environ.get("KDJAX_WEIGHTS", ""))
needs_weights = pytest.mark.skipif(
    "KDJAX_WEIGHTS" not in os.environ, reason="KDJAX_WEIGHTS names no folder of weights"
)
needs_fetched = pytest.mark.skipif(
    not fetch.IMAGES.is_dir(), reason=f"fetch them by python -m {fetch.__name__}"
)


def loaded(module, source, side):
    """A function from images to logits, with the weights of `source`."""
    images = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    variables = jax.device_put(load_weights(shapes, source))
    apply = jax.jit(module.apply)
    return lambda images: np.asarray(apply(variables, images)[0])


@pytest.fixture(scope="module")
def cifar10_test():
    """All 10 000 images, normalized as these weights were trained, and labels."""
    import tensorflow_datasets as tfds

    source = tfds.data_source("cifar10", split="test", download=False)
    images = np.stack([example["image"] for example in source])
    labels = np.array([example["label"] for example in source])
    # The means and deviations of akamaster/pytorch_resnet_cifar10's trainer.
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    return (images / np.float32(255) - mean) / std, labels


@needs_weights
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth, accuracy", [(20, 91.73), (32, 92.63), (56, 93.39)])
def test_resnets_for_cifar_reach_their_accuracy(cifar10_test, depth, accuracy):
    images, labels = cifar10_test
    assert images.shape == (10_000, 32, 32, 3)
    file = WEIGHTS / f"cifar10_resnet{depth}.safetensors"
    logits_of = loaded(ResNetCifar(depth, 16, 10, "batch"), file, 32)
    right = 0
    for i in range(0, len(images), 500):
        right += (logits_of(images[i : i + 500]).argmax(1) == labels[i : i + 500]).sum()
    print(f"ResNet-{depth}: {right} of 10000 right")
    assert right / 100 == pytest.approx(accuracy, abs=0.02)


def central_crop(path):
    """The middle 87.5 % of the shorter side at 224 px, as these networks are tested."""
    image = Image.open(path).convert("RGB")
    side = 0.875 * min(image.size)
    left, top = ((n - side) / 2 for n in image.size)
    box = (left, top, left + side, top + side)
    small = image.resize((224, 224), Image.Resampling.BICUBIC, box)
    return np.asarray(small, np.float32)


@pytest.fixture(scope="module")
def imagenet_samples():
    """Foolbox's 20 images in [0, 255], and the labels in their names."""
    paths = sorted(fetch.IMAGES.glob("imagenet_*.jpg"))
    assert len(paths) == 20
    labels = [int(re.fullmatch(r"imagenet_\d+_(\d+)", p.stem)[1]) for p in paths]
    return np.stack([central_crop(path) for path in paths]), np.array(labels)


def right(logits, labels, most):
    """How many labels are among the `most` largest logits."""
    top = np.argsort(-logits, 1)[:, :most]
    return int((top == labels[:, None]).any(1).sum())


@needs_fetched
def test_efficientnet_lite0_knows_the_samples(imagenet_samples):
    images, labels = imagenet_samples
    logits = loaded(EfficientNetLite(0), fetch.LITE0, 224)((images - 127) / 128)
    assert (right(logits, labels, 1), right(logits, labels, 5)) == (18, 19)


@needs_fetched
def test_resnet50_of_keras_knows_the_samples(imagenet_samples):
    images, labels = imagenet_samples
    mean = np.array([123.68, 116.779, 103.939], np.float32)
    logits = loaded(ResNet(50, keras=True), fetch.KERAS, 224)(images - mean)
    assert (right(logits, labels, 1), right(logits, labels, 5)) == (19, 20)
