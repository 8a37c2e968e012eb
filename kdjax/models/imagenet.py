"""The ImageNet networks by name."""

from collections.abc import Callable
from functools import partial

from flax import linen as nn

from kdjax.config import ModelConfig, require
from kdjax.models.efficientnet_lite import EfficientNetLite
from kdjax.models.mobilenet_v3 import MobileNetV3
from kdjax.models.resnet import ResNet
from kdjax.models.resnet_v2 import ResNetV2
from kdjax.models.vit import ViT

Make = Callable[[ModelConfig, int, str | None], nn.Module]


def _bit(
    depth: int, width: int, config: ModelConfig, classes: int, axis_name: str | None
) -> nn.Module:
    del axis_name
    expected = f"group for {config.name}, which has no other"
    require(config.norm == "group", "norm", expected, config.norm)
    return ResNetV2(depth, width, classes)


def _resnet(
    depth: int, keras: bool, config: ModelConfig, classes: int, axis_name: str | None
) -> nn.Module:
    return ResNet(depth, classes, config.norm, keras, axis_name)


def _mobilenet(
    size: str, config: ModelConfig, classes: int, axis_name: str | None
) -> nn.Module:
    return MobileNetV3(size, classes, config.norm, axis_name)


def _lite(
    variant: int, config: ModelConfig, classes: int, axis_name: str | None
) -> nn.Module:
    return EfficientNetLite(variant, classes, config.norm, axis_name)


def _vit(
    size: str,
    patch: int,
    deit: bool,
    config: ModelConfig,
    classes: int,
    axis_name: str | None,
) -> nn.Module:
    # LayerNorm whatever `config.norm` says: nothing else was ever meant here.
    del config, axis_name
    return ViT(size, patch, classes, distilled=deit, exact_gelu=deit)


# name: (config, classes, axis_name) -> module. Of the config they read `norm`; depth
# and width are in the name.
MODELS: dict[str, Make] = {
    "bit_r50x1": partial(_bit, 50, 1),
    "bit_r101x1": partial(_bit, 101, 1),
    "bit_r101x3": partial(_bit, 101, 3),
    "bit_r152x2": partial(_bit, 152, 2),
    "resnet18": partial(_resnet, 18, False),
    "resnet34": partial(_resnet, 34, False),
    "resnet50": partial(_resnet, 50, False),
    "resnet50_keras": partial(_resnet, 50, True),
    "mobilenet_v3_small": partial(_mobilenet, "small"),
    "mobilenet_v3_large": partial(_mobilenet, "large"),
    **{f"efficientnet_lite{i}": partial(_lite, i) for i in range(5)},
    "vit_ti16": partial(_vit, "Ti", 16, False),
    "vit_s16": partial(_vit, "S", 16, False),
    "vit_s32": partial(_vit, "S", 32, False),
    "vit_b16": partial(_vit, "B", 16, False),
    "vit_b32": partial(_vit, "B", 32, False),
    "deit_ti16": partial(_vit, "Ti", 16, True),
    "deit_s16": partial(_vit, "S", 16, True),
    "deit_b16": partial(_vit, "B", 16, True),
}
