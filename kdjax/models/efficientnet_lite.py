"""EfficientNet-Lite 0 to 4: inverted bottlenecks without squeeze-and-excitation."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import FAN_OUT, conv_norms, require_common, require_images

# variant: factor of the channels, factor of the repeats
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
# The side in pixels at which each variant was trained.
RESOLUTIONS = {0: 224, 1: 240, 2: 260, 3: 280, 4: 300}


# Of the norms, here and in MobileNetV3.
NORM_OPTIONS = {"epsilon": 1e-3, "momentum": 0.99, "groups": 8}
# TensorFlow's padding.
_conv_norms = partial(
    conv_norms, norm_options=NORM_OPTIONS, init=FAN_OUT, padding="SAME"
)


class Stage(NamedTuple):
    """Blocks of one kind; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least that and never below 90 %."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def stages(variant: int) -> list[Stage]:
    """The stages at the scale of `variant`; first and last are never repeated more."""
    width, depth = SCALES[variant]
    scaled = []
    for i, stage in enumerate(STAGES):
        ends = i in (0, len(STAGES) - 1)
        repeats = stage.repeats if ends else math.ceil(depth * stage.repeats)
        channels = rounded(width * stage.channels)
        scaled.append(stage._replace(repeats=repeats, channels=channels))
    return scaled


class Block(nn.Module):
    """1x1 expansion (left out where it is 1), depthwise convolution, 1x1 projection."""

    channels: int
    kernel: int
    stride: int
    expansion: int
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        normed = _conv_norms(self.norm, train, self.axis_name)
        wide = self.expansion * x.shape[-1]
        y = x
        if self.expansion != 1:
            y = nn.relu6(normed(y, "expand_conv", wide))
        y = nn.relu6(
            normed(y, "depthwise_conv", wide, self.kernel, self.stride, groups=wide)
        )
        y = normed(y, "project_conv", self.channels)
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet without squeeze-and-excitation and with ReLU6.

    Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks", arXiv 1905.11946; the Lite variants are TensorFlow's. No dropout and no
    stochastic depth. The published weights expect pixels as (x - 127) / 128.

    variant: 0 to 4.
    classes: number of logits.
    norm: "batch" (momentum 0.99) or "group" (8 groups); eps 1e-3.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage5" `[batch, height,
    width, channels]`, the last activation of each resolution (1/2 to 1/32), and
    "embedding" `[batch, 1280]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    variant: int = 0
    classes: int = 1000
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        require(self.variant in SCALES, "variant", "0 to 4", self.variant)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        normed = _conv_norms(self.norm, train, self.axis_name)
        x = nn.relu6(normed(images, "stem_conv", 32, 3, 2))
        taps = {"stem": x}
        block = 0
        for stage in stages(self.variant):
            if stage.stride == 2:
                taps[f"stage{len(taps)}"] = x
            for repeat in range(stage.repeats):
                x = Block(
                    channels=stage.channels,
                    kernel=stage.kernel,
                    stride=stage.stride if repeat == 0 else 1,
                    expansion=stage.expansion,
                    norm=self.norm,
                    axis_name=self.axis_name,
                    name=f"block{block}",
                )(x, train)
                block += 1
        taps[f"stage{len(taps)}"] = x
        x = nn.relu6(normed(x, "head_conv", 1280))
        taps["embedding"] = jnp.mean(x, (1, 2))
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps
