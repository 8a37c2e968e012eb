"""ShuffleNet (V1) for 32x32 images: grouped 1x1 convolutions and channel shuffles.

Parameters: `stem_conv`, `stem_norm`; `stage{s}_block{b}` (b from 0) with `conv1` to
`conv3` and `norm1` to `norm3`; `head`. In RepDistiller's PyTorch network these are
`conv1`, `bn1`; `layer{s}.{b}` with `conv1` to `conv3`, `bn1` to `bn3`; `linear`.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import (
    channel_shuffle,
    conv_norms,
    mean_pool,
    require_common,
    require_images,
)

_STEM = 24


class ShuffleUnit(nn.Module):
    """1x1, shuffle, 3x3 depthwise, 1x1, and a shortcut; before the last ReLU.

    With stride 1 the input is added. With stride 2 its 3x3 mean is put behind the
    convolutions' `channels - channels in`, so that `channels` come out in both cases.

    groups: of both 1x1 convolutions; `first_groups` of the first one and its shuffle.
    """

    channels: int
    stride: int
    groups: int
    first_groups: int
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        normed = conv_norms(self.norm, train, self.axis_name)
        outer = self.channels - (x.shape[-1] if self.stride == 2 else 0)
        inner = outer // 4
        y = nn.relu(normed(x, "conv1", inner, groups=self.first_groups))
        y = channel_shuffle(y, self.first_groups)
        y = nn.relu(normed(y, "conv2", inner, 3, self.stride, groups=inner))
        y = normed(y, "conv3", outer, groups=self.groups)
        if self.stride == 1:
            return x + y
        # Padding counts as zeros in the mean, as in PyTorch.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.avg_pool(x, (3, 3), (2, 2))
        return jnp.concatenate([y, x], axis=-1)


class ShuffleNetV1Cifar(nn.Module):
    """ShuffleNet with named activations, as the CIFAR-100 distillation tables have it.

    Zhang et al. 2018, "ShuffleNet", arXiv 1707.01083, 3 groups. What differs from the
    paper, and is of the tables (Tian et al. 2020, arXiv 1910.10699): the stem is a 1x1
    convolution that keeps the resolution, and a ReLU follows the depthwise convolution.

    channels, blocks: of stages 1 to 3.
    groups: of the 1x1 convolutions; the very first one, on 24 channels, has 1.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage3" `[batch, height,
    width, channels]` after ReLU (32, 16, 8 and 4 pixels a side for images of 32),
    "stage1_pre" to "stage3_pre" before that ReLU, and "embedding" `[batch, channels]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    channels: tuple[int, int, int] = (240, 480, 960)
    blocks: tuple[int, int, int] = (4, 8, 4)
    groups: int = 3
    classes: int = 100
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        _require_channels(self.channels, self.groups)
        ok = len(self.blocks) == 3 and min(self.blocks) >= 1
        require(ok, "blocks", "three numbers, each at least 1", self.blocks)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        normed = conv_norms(self.norm, train, self.axis_name)
        x = nn.relu(normed(images, "stem_conv", _STEM))
        taps = {"stem": x}
        for stage, channels in enumerate(self.channels, 1):
            for block in range(self.blocks[stage - 1]):
                first = 1 if stage == 1 and block == 0 else self.groups
                pre = ShuffleUnit(
                    channels,
                    2 if block == 0 else 1,
                    self.groups,
                    first,
                    self.norm,
                    self.axis_name,
                    name=f"stage{stage}_block{block}",
                )(x, train)
                x = nn.relu(pre)
                taps[f"stage{stage}_pre"] = pre
            taps[f"stage{stage}"] = x
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps


def _require_channels(channels: tuple[int, ...], groups: int) -> None:
    require(groups >= 1, "groups", "at least 1", groups)
    require(len(channels) == 3, "channels", "three numbers", channels)
    # A block's convolutions give what the shortcut does not, with a quarter inside.
    steps = (after - before for before, after in pairwise((_STEM, *channels)))
    widths = [*channels, *steps]
    ok = all(width >= 4 and width // 4 % groups == 0 for width in widths)
    ok = ok and all(width % groups == 0 for width in widths)
    expected = f"growing from {_STEM}, steps and quarters divisible by groups {groups}"
    require(ok, "channels", expected, channels)
