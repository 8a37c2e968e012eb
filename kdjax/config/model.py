"""Configs of a network by name and size."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from kdjax.config.bounds import Pixels, Size
from kdjax.config.checks import require, require_local

Adapt = Literal["head", "position", "stem"]
Normalization = Literal["symmetric", "unit", "imagenet", "cifar10", "cifar100", "caffe"]

Modality = Literal["image", "gray", "edges"]

# What stands in a field that published weights determine, and its value without them.
OPEN = {"name": "", "norm": "auto", "resolution": 0, "normalization": "auto"}
DEFAULTS = {"norm": "group", "resolution": 32, "normalization": "symmetric"}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An image classifier by name and size.

    Published weights bring their network, norm, resolution and normalization with
    them. A field that is left open (`OPEN`) takes these values.
    """

    name: str = ""
    """A network of kdjax, such as `resnet20` (`kdjax models` lists all), or
    `file.py:function` of your own, called with this config and the number of classes,
    returning a `kdjax.core.types.Model`. `resnet` is the network of the digits, of
    `depth` and `width`. Empty: the network of published `weights`."""
    depth: int = 8
    """Layers of `resnet`, 6n + 2."""
    width: Size = 2
    """Channels of the first stage of `resnet`. Its second and third stage have twice
    and four times as many."""
    norm: Literal["auto", "batch", "group"] = "auto"
    """BatchNorm or GroupNorm. auto: that of published `weights`, else GroupNorm."""
    resolution: Pixels = 0
    """Height and width of the images that enter the model. 0: those of published
    `weights`, else 32."""
    weights: str = ""
    """Published weights to start from: a file (.npz, .safetensors, a tfjs folder; ~ and
    $VARIABLES are expanded) or a name on the Hugging Face hub (hf:owner/name). A
    student may also start from the folder of a finished run of the same model, seed by
    seed. Empty: random initialization."""
    adapt: tuple[Adapt, ...] = ()
    """Parts of these weights that may be changed to fit: head (another number of
    classes; students only), position (embeddings for another resolution), stem (other
    channels)."""
    normalization: Literal["auto", Normalization] = "auto"
    """Scale of the pixels that enter the model. symmetric: [-1, 1]. unit: [0, 1].
    imagenet, cifar10, cifar100 and caffe standardize by published statistics. auto:
    that of published `weights`, else symmetric."""

    modality: Modality = "image"
    """Part of each image that enters the model, for a teacher and a student of two
    modalities. image: all of it. gray: its gray levels. edges: the norm of their
    gradient. The last two have one channel."""

    def __post_init__(self) -> None:
        if self.name and not self.weights:
            for name, value in self._fill(DEFAULTS).items():
                object.__setattr__(self, name, value)

    def filled(self, published: Mapping[str, Any]) -> "ModelConfig":
        """The config with its open fields filled.

        published: values of fields by name; those of `DEFAULTS` where one is missing.
        """
        return dataclasses.replace(self, **self._fill({**DEFAULTS, **published}))

    @property
    def input_scale(self) -> str:
        """Scale and modality of its inputs, which tell apart targets of a cache."""
        also = "" if self.modality == "image" else f" of {self.modality}"
        return f"{self.normalization}{also}"

    @property
    def open_fields(self) -> tuple[str, ...]:
        """The fields whose values published weights determine."""
        return tuple(name for name in OPEN if getattr(self, name) == OPEN[name])

    def _fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        names = [*self.open_fields]
        if "name" in names:
            names += ["depth", "width"]  # They belong to the name.
        return {name: values[name] for name in names if name in values}

    def check(self, at: str = "model") -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        ok = bool(self.name or self.weights)
        require(ok, f"{at}.name", "a name", self.name)
        ok = self.resolution == OPEN["resolution"] or self.resolution >= 4
        require(ok, f"{at}.resolution", ">= 4 pixels", self.resolution)
        if self.name == "resnet":
            ok = 8 <= self.depth <= 10_004 and (self.depth - 2) % 6 == 0
            expected = "6n + 2 with n >= 1, at most 10,004"
            require(ok, f"{at}.depth", expected, self.depth)
        expected = "a file on this machine, or hf:owner/name"
        require_local(self.weights, f"{at}.weights", expected)
        ok = bool(self.weights) or not self.adapt
        require(ok, f"{at}.adapt", f"none without {at}.weights", self.adapt)
