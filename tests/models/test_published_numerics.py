"""Our networks say what PyTorch's say, given the same weights by name.

The references were made by `tests/models/reference/make.py`, from timm and torchvision.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.efficientnet_lite import EfficientNetLite
from kdjax.models.mobilenet_v3 import MobileNetV3
from kdjax.models.resnet import ResNet
from kdjax.models.resnet_v2 import ResNetV2
from kdjax.models.vit import Size, ViT
from kdjax.models.weights import load_weights, save_weights
from kdjax.models.weights.files import read_arrays, write_arrays
from tests.models.reference import rule

FILE = pathlib.Path(__file__).parent / "reference" / "torch_logits.json"
REFERENCE = json.loads(FILE.read_text())
SMALL = Size(192, 2, 3)

# case of the reference: our network, and the names that PyTorch's has
CASES = {
    "bit_r50x1": (ResNetV2(50, 1, 10), "timm_bit"),
    "resnet18": (ResNet(18, 10), "torch_resnet"),
    "resnet50": (ResNet(50, 10), "torch_resnet"),
    "mobilenet_v3_small": (MobileNetV3("small", 10), "torch_mobilenet_v3"),
    "mobilenet_v3_large": (MobileNetV3("large", 10), "torch_mobilenet_v3"),
    "efficientnet_lite0": (EfficientNetLite(0, 10), "timm_efficientnet_lite"),
    "efficientnet_lite4": (EfficientNetLite(4, 10), "timm_efficientnet_lite"),
    "vit_ti16": (ViT(SMALL, 16, 10, exact_gelu=True), "timm_vit"),
    "deit_ti16": (ViT(SMALL, 16, 10, distilled=True, exact_gelu=True), "timm_vit"),
}


def published(module, names, images, folder):
    """The module's variables as `rule` gives them to PyTorch's network, from a file."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    save_weights(blank, folder / "blank.safetensors", names=names)
    arrays = read_arrays(folder / "blank.safetensors")
    filled = {name: rule.weight(name, x.shape) for name, x in arrays.items()}
    write_arrays(folder / "filled.safetensors", filled)
    return load_weights(shapes, folder / "filled.safetensors")


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_pytorch(case, tmp_path):
    module, names = CASES[case]
    expected = np.asarray(REFERENCE[case]["logits"])
    images = jnp.asarray(rule.images(REFERENCE[case]["side"]))
    variables = published(module, names, images, tmp_path)
    logits, _ = jax.jit(module.apply)(variables, images)
    # Logits of random weights are of any size: 1e-4, or of the largest if it is more.
    tolerance = 1e-4 * max(1, np.abs(expected).max())
    if case.startswith("bit"):
        tolerance = 1e-4
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=tolerance)


def test_the_references_tell_classes_apart():
    """A network that says its biases only would pass otherwise."""
    for case, reference in REFERENCE.items():
        assert case in CASES and np.std(reference["logits"]) > 0.15
