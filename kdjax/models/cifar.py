"""The networks of the CIFAR tables by name: sizes are in the name.

Of the config they use `norm` alone. Every one takes images of 32 pixels a side and
returns `(logits, taps)`.
"""

import re
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from kdjax import config as configs
from kdjax.models import plain_cnn, shufflenet_v2
from kdjax.models.mobilenet_v2 import MobileNetV2Cifar
from kdjax.models.plain_cnn import PlainCnn
from kdjax.models.resnet import ResNet
from kdjax.models.resnet_cifar import ResNetCifar
from kdjax.models.shufflenet_v1 import ShuffleNetV1Cifar
from kdjax.models.shufflenet_v2 import ShuffleNetV2Cifar
from kdjax.models.vgg import Vgg
from kdjax.models.wide_resnet import WideResNet

Make = Callable[[configs.ModelConfig, int, str | None], nn.Module]


def _make(network: Callable[..., nn.Module], **sizes: Any) -> Make:
    def make(
        config: configs.ModelConfig, classes: int, axis_name: str | None
    ) -> nn.Module:
        fields = {"norm": config.norm, "axis_name": axis_name}
        return network(classes=classes, **fields, **sizes)

    return make


# Those of the tables, and teachers of others.
_WIDE = ((16, 1), (16, 2), (40, 1), (40, 2), (16, 8), (28, 4), (28, 10), (40, 4))


def wide(name: str) -> Make | None:
    """The wide ResNet that `wrn_DEPTH_FACTOR` names, or `wrn_DEPTH_FACTOR_CONVS` with
    cheap convolutions such as `g4b2`; None for any other name."""
    sizes = re.fullmatch(r"wrn_(\d+)_([1-9]\d*)(?:_([gab]\w*))?", name)
    if sizes is None:
        return None
    fields = {"depth": int(sizes[1]), "factor": int(sizes[2])}
    return _make(WideResNet, **fields, convs=sizes[3] or "")


MODELS: dict[str, Make] = {
    **{
        f"resnet{depth}": _make(ResNetCifar, depth=depth, width=16)
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    **{
        f"resnet{depth}_pad": _make(ResNetCifar, depth=depth, width=16, pad=True)
        for depth in (20, 32, 44, 56, 110)
    },
    **{
        f"resnet{depth}_cifar": _make(ResNet, depth=depth, small=True)
        for depth in (18, 34, 50)
    },
    "resnet8x4": _make(ResNetCifar, depth=8, width=64, stem=32),
    "resnet32x4": _make(ResNetCifar, depth=32, width=64, stem=32),
    **{
        f"wrn_{depth}_{factor}": _make(WideResNet, depth=depth, factor=factor)
        for depth, factor in _WIDE
    },
    **{f"vgg{depth}": _make(Vgg, depth=depth) for depth in (8, 11, 13, 16, 19)},
    "mobilenet_v2_cifar": _make(MobileNetV2Cifar, expansion=6, width=0.5),
    "shufflenet_v1_cifar": _make(ShuffleNetV1Cifar),
    "shufflenet_v2_cifar": _make(ShuffleNetV2Cifar, channels=shufflenet_v2.SIZES[1.0]),
    "shufflenet_v2_x1_5_cifar": _make(
        ShuffleNetV2Cifar, channels=shufflenet_v2.SIZES[1.5]
    ),
    "plain_cnn_teacher": _make(PlainCnn, channels=plain_cnn.TEACHER),
    "plain_cnn_student": _make(PlainCnn, channels=plain_cnn.STUDENT),
}
"""Name -> `(config, classes, axis_name) -> network`."""
