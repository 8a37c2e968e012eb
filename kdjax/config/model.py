"""Configs of a network by name and size."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Unit

from kdjax.config.bounds import AtLeastOne, Text
from kdjax.config.checks import require, require_local

Adapt = Literal["head", "position", "stem"]
Normalization = Literal["symmetric", "unit", "imagenet", "cifar10", "cifar100", "caffe"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An image classifier by name and size."""

    name: Text = ""
    """`resnet` (CIFAR style, of `depth` and `width`); for small images resnet8,
    resnet14, resnet20, resnet32, resnet44, resnet56, resnet110, the same with
    parameter-free shortcuts as resnet20_pad, resnet32_pad, resnet44_pad, resnet56_pad,
    resnet110_pad, resnet8x4, resnet32x4, resnet18_cifar, resnet34_cifar,
    resnet50_cifar, wrn_16_1, wrn_16_2, wrn_16_8, wrn_28_4, wrn_28_10, wrn_40_1,
    wrn_40_2, wrn_40_4, vgg8, vgg11, vgg13, vgg16, vgg19, mobilenet_v2_cifar,
    shufflenet_v1_cifar, shufflenet_v2_cifar, shufflenet_v2_x1_5_cifar,
    plain_cnn_teacher, plain_cnn_student; for large ones resnet18, resnet34, resnet50,
    resnet50_keras, bit_r50x1, bit_r101x1, bit_r101x3, bit_r152x2, mobilenet_v3_small,
    mobilenet_v3_large, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2,
    efficientnet_lite3, efficientnet_lite4, vit_ti16, vit_s16, vit_s32, vit_b16,
    vit_b32, deit_ti16, deit_s16, deit_b16. Or `module:function` of your own, called
    with this config and the number of classes, returning a `kdjax.core.types.Model`."""
    depth: int = 8
    """Layers of `resnet`, 6n + 2."""
    width: AtLeastOne = 2
    """Channels of the first stage of `resnet`. Its second and third stage have twice
    and four times as many."""
    norm: Literal["batch", "group"] = "group"
    """BatchNorm or GroupNorm."""
    resolution: Annotated[int, Ge(4), Unit("pixels")] = 32
    """Height and width of the images that enter the model."""
    weights: str = ""
    """Published weights to start from: a file (.npz, .safetensors, a tfjs folder; ~ and
    $VARIABLES are expanded) or a name on the Hugging Face hub (hf:owner/name). A
    student may also start from the folder of a finished run of the same model, seed by
    seed. Empty: random initialization."""
    adapt: tuple[Adapt, ...] = ()
    """Parts of these weights that may be changed to fit: head (another number of
    classes; students only), position (embeddings for another resolution), stem (other
    channels)."""
    normalization: Normalization = "symmetric"
    """Scale of the pixels that enter the model. symmetric: [-1, 1]. unit: [0, 1]. The
    others standardize by the statistics published with these data sets."""

    def check(self, at: str = "model") -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        if self.name == "resnet":
            ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
            require(ok, f"{at}.depth", "6n + 2 with n >= 1", self.depth)
        expected = "a file on this machine, or hf:owner/name"
        require_local(self.weights, f"{at}.weights", expected)
        ok = bool(self.weights) or not self.adapt
        require(ok, f"{at}.adapt", f"none without {at}.weights", self.adapt)
