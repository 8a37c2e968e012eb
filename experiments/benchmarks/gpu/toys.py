"""Networks of a dry run: one block each, so that they compile in seconds on CPU."""

from typing import Any

import jax
from flax import linen as nn

from kdjax.config import ModelConfig
from kdjax.models import from_linen
from kdjax.models.layers import conv, norm
from kdjax.models.resnet_v2 import Block, Root

CIFAR, BIT = f"{__name__}:cifar", f"{__name__}:bit"


class ToyCifar(nn.Module):
    """One convolution with its norm, and a head."""

    classes: int
    norm: str

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False):
        """Logits and no taps."""
        x = nn.relu(norm(self.norm, 8, train, None)(conv(8, 3, 2)(images)))
        return nn.Dense(self.classes)(x.mean((1, 2))), {}


class ToyBit(nn.Module):
    """One bottleneck between the root and the head of BiT."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False):
        """Logits and no taps."""
        del train
        x = Block(1, 32, 1)(Root(32)(images))
        return nn.Dense(self.classes)(x.mean((1, 2))), {}


def cifar(config: ModelConfig, classes: int) -> Any:
    """In place of the ResNets of CIFAR."""
    return from_linen(ToyCifar(classes, config.norm))


def bit(config: ModelConfig, classes: int) -> Any:
    """In place of the ResNets of BiT."""
    del config
    return from_linen(ToyBit(classes))
