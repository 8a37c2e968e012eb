"""Configs of a network by name and size."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Unit

from kdjax.config.bounds import AtLeastOne, Text
from kdjax.config.checks import require

Adapt = Literal["head", "position", "stem"]
Normalization = Literal["symmetric", "unit", "imagenet", "cifar10", "cifar100", "caffe"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An image classifier by name and size."""

    name: Text = ""
    """A network of kdjax, such as `resnet20` (`kdjax models` lists all), or
    `file.py:function` of your own, called with this config and the number of classes,
    returning a `kdjax.core.types.Model`. `resnet` is the network of the digits, of
    `depth` and `width`."""
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
        ok = bool(self.weights) or not self.adapt
        require(ok, f"{at}.adapt", f"none without {at}.weights", self.adapt)
