"""CIFAR-10 as a config: a preset, changed in Python.

    kdjax distill --config experiments/examples/cifar10.py:run

A published ResNet-56 teaches ResNet-20 in batches of 512. The environment variable
KDJAX_WEIGHTS names the folder of `cifar10_resnet56.safetensors`.
"""

from kdjax.config import FromWeights, ModelConfig, Run
from kdjax.presets import cifar10

WEIGHTS = "$KDJAX_WEIGHTS/cifar10_resnet56.safetensors"


def run() -> Run:
    """Function matching for 300 epochs of 45,000 images."""
    return cifar10(
        # The weights bring network, norm, resolution and pixel scale.
        teacher=FromWeights(ModelConfig(weights=WEIGHTS)),
        steps=300 * 45_000 // 512,
        batch=512,
        evaluate_every=1_000,
        checkpoint_every=1_000,
    )
