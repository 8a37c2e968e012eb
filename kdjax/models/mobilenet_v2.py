"""MobileNetV2 for 32x32 images: inverted residual blocks with linear bottlenecks.

Parameters: `stem_conv`, `stem_norm`; `group{g}_block{b}` (both from 0) with `conv1` to
`conv3` and `norm1` to `norm3`; `last_conv`, `last_norm`; `head`. In RepDistiller's
PyTorch network these are `conv1.0`, `conv1.1`; `blocks.{g}.{b}.conv` with convolutions
0, 3, 6 and norms 1, 4, 7; `conv2.0`, `conv2.1`; `classifier.0`.
"""

import jax
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import (
    conv_norms,
    mean_pool,
    require_common,
    require_images,
)

# Of each group: channels at width 1, and stride of the first block.
_CHANNELS = (16, 24, 32, 64, 96, 160, 320)
_STRIDES = (1, 1, 2, 2, 1, 2, 1)
# The last group before a change of resolution, and the tap taken there.
_TAPS = {1: "stage1", 2: "stage2", 4: "stage3", 6: "stage4"}
_LAST = 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 linear convolution, each with a norm.

    `[batch, height, width, any]` -> `[batch, ceil(height / stride), ..., channels]`.
    No ReLU follows the last norm; the input is added where the shape is the same.
    """

    channels: int
    stride: int = 1
    expansion: int = 6
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        normed = conv_norms(self.norm, train, self.axis_name)
        inner = x.shape[-1] * self.expansion
        y = nn.relu(normed(x, "conv1", inner))
        y = nn.relu(normed(y, "conv2", inner, 3, self.stride, groups=inner))
        y = normed(y, "conv3", self.channels)
        return x + y if x.shape == y.shape and self.stride == 1 else y


class MobileNetV2Cifar(nn.Module):
    """MobileNetV2 with named activations, as the CIFAR-100 distillation tables have it.

    Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    arXiv 1801.04381. What differs from the paper, and is of the tables (Tian et al.
    2020, arXiv 1910.10699): group 1 does not reduce the resolution, group 0 has its
    first 1x1 convolution although it does not expand, ReLU is not cut at 6, widths are
    rounded down to a whole number, and there is no dropout.

    expansion: channels inside a block over those of its input (1 in group 0).
    width: factor on all channels but the last 1280, which grow only above 1.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    blocks: number of blocks in each of the seven groups.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" after ReLU, "stage1" to "stage4" `[batch,
    height, width, channels]` (16, 16, 8, 4 and 2 pixels a side for images of 32), which
    are linear bottlenecks: no ReLU follows them, so there are no taps before one; and
    "embedding" `[batch, 1280]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    expansion: int = 6
    width: float = 0.5
    classes: int = 100
    norm: str = "batch"
    axis_name: str | None = None
    blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)

    def __post_init__(self) -> None:
        require(self.expansion >= 1, "expansion", "at least 1", self.expansion)
        require(self.width >= 1 / 16, "width", "at least 1/16", self.width)
        ok = len(self.blocks) == len(_CHANNELS) and min(self.blocks) >= 1
        require(ok, "blocks", "seven numbers, each at least 1", self.blocks)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        normed = conv_norms(self.norm, train, self.axis_name)
        x = nn.relu(normed(images, "stem_conv", int(32 * self.width), 3, 2))
        taps = {"stem": x}
        for group, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = InvertedResidual(
                    int(_CHANNELS[group] * self.width),
                    _STRIDES[group] if block == 0 else 1,
                    1 if group == 0 else self.expansion,
                    self.norm,
                    self.axis_name,
                    name=f"group{group}_block{block}",
                )(x, train)
            if group in _TAPS:
                taps[_TAPS[group]] = x
        x = nn.relu(normed(x, "last_conv", int(_LAST * max(self.width, 1.0))))
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps
