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
    """`resnet` (CIFAR style), or `module:function` of your own, called with this
    config and the number of classes, returning a `kdjax.core.types.Model`."""
    depth: int = 8
    """Layers, 6n + 2."""
    width: int = 2
    """Channels of the first stage; the next two have twice and four times as many."""
    norm: Literal["batch", "group"] = "group"
    """BatchNorm or GroupNorm."""
    resolution: int = 8
    """Side in pixels of the square that this model sees."""
    weights: str = ""
    """Published weights to start from: a file (.npz, .safetensors, a tfjs folder) or a
    name on the Hugging Face hub (hf:owner/name). Empty: drawn at random."""
    adapt: tuple[Adapt, ...] = ()
    """What of these weights may be fitted to this model: its head (another number of
    classes), position embeddings (another resolution), stem (other channels)."""
    pixels: Pixels = "half"
    """The scale on which it wants its pixels: half is [-1, 1], unit is [0, 1]; the
    others standardise as the published networks of these data sets expect."""

    def check(self, at: str = "model") -> None:
        if self.name == "resnet":
            ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
            require(ok, f"{at}.depth", "6n + 2 with n >= 1", self.depth)
            require(self.width >= 1, f"{at}.width", "at least 1", self.width)
        require(
            self.norm in ("batch", "group"), f"{at}.norm", "batch or group", self.norm
        )
        require(
            self.resolution >= 4, f"{at}.resolution", ">= 4 pixels", self.resolution
        )
