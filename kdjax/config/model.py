"""A network by name and size."""

import dataclasses
from typing import Literal

from kdjax.config.checks import require

Adapt = Literal["head", "position", "stem"]
Pixels = Literal["half", "unit", "imagenet", "cifar10", "cifar100", "caffe"]


@dataclasses.dataclass(frozen=True)
class Model:
    """An image classifier by name and size."""

    name: str = "resnet"
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
    width: int = 2
    """Channels of the first stage of `resnet`; the next two have twice and four times
    as many."""
    norm: Literal["batch", "group"] = "group"
    """BatchNorm or GroupNorm."""
    resolution: int = 8
    """Side in pixels of the square that this model sees."""
    weights: str = ""
    """Published weights to start from: a file (.npz, .safetensors, a tfjs folder; ~ and
    $VARIABLES are filled in) or a name on the Hugging Face hub (hf:owner/name). For a
    student also the folder of a finished run of this very model, seed by seed. Empty:
    drawn at random."""
    adapt: tuple[Adapt, ...] = ()
    """What of these weights may be fitted to this model: its head (another number of
    classes; not a teacher's, which nobody would train), position embeddings (another
    resolution), stem (other channels)."""
    pixels: Pixels = "half"
    """The scale on which it wants its pixels: half is [-1, 1], unit is [0, 1]; the
    others standardise as the published networks of these data sets expect."""

    def check(self, at: str = "model") -> None:
        if self.name == "resnet":
            ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
            require(ok, f"{at}.depth", "6n + 2 with n >= 1", self.depth)
            require(self.width >= 1, f"{at}.width", "at least 1", self.width)
        require(
            self.resolution >= 4, f"{at}.resolution", ">= 4 pixels", self.resolution
        )
        ok = bool(self.weights) or not self.adapt
        require(ok, f"{at}.adapt", f"none without {at}.weights", self.adapt)
