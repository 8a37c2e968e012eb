"""Small students of other families, for images of 8 to 32 pixels, and a teacher
restricted to some of its classes."""

import dataclasses

from experiments.function_matching.sets import CLASSES, VEHICLES
from kdjax.config import ModelConfig as Config


def mobile(config: Config, classes: int):
    """Five blocks of MobileNetV3 behind a stem that keeps the resolution."""
    from flax import linen as nn

    from kdjax.models import mobilenet_v3
    from kdjax.models.adapters import from_linen

    # Kernel, expanded, channels, squeeze, hard swish, stride.
    rows = (
        (3, 16, 16, False, False, 1),
        (3, 48, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, True, 2),
        (5, 120, 40, True, True, 1),
    )

    class Mobile(nn.Module):
        @nn.compact
        def __call__(self, images, train: bool = False):
            normed = mobilenet_v3.conv_norms(config.norm, train, None)
            x = nn.hard_swish(normed(images, "stem_conv", 16, 3))
            for i, row in enumerate(rows):
                block = mobilenet_v3.Block(
                    mobilenet_v3.Row(*row), config.norm, None, name=f"block{i}"
                )
                x = block(x, train)
            return nn.Dense(classes, name="head")(x.mean((1, 2)))

    return from_linen(Mobile())


def vit(config: Config, classes: int):
    """Four layers over 16 to 64 patches."""
    from kdjax.models.adapters import from_linen
    from kdjax.models.vit import Size, ViT

    small = config.resolution < 16
    size = Size(32, 4, 4) if small else Size(96, 4, 4)
    return from_linen(ViT(size, patch=2 if small else 4, classes=classes))


def resnet56_of_vehicles(config: Config, classes: int):
    """ResNet-56 of CIFAR-10 with its logits of vehicles alone."""
    import numpy as np

    from kdjax.core.types import Model
    from kdjax.models.zoo import make_model

    chosen = np.array(VEHICLES)
    assert classes == len(chosen), f"expected {len(chosen)} vehicles, got {classes}"
    whole = make_model(
        dataclasses.replace(
            config, name="resnet56", weights="", normalization="symmetric"
        ),
        CLASSES,
    )

    def apply(variables, images, *, train=False, rngs=None):
        outputs, state = whole.apply(variables, images, train=train, rngs=rngs)
        return outputs._replace(logits=outputs.logits[:, chosen]), state

    return Model(whole.init, apply)
