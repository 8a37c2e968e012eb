"""ShuffleNetV2 for 32x32 images: channel splits and shuffles, no grouped 1x1.

Parameters: `stem_conv`, `stem_norm`; `stage{s}_block{b}` with `conv1` to `conv3` and
`norm1` to `norm3`, or to 5 in block 0, where 1 and 2 are the left branch and 3 to 5 the
right; `last_conv`, `last_norm`; `head`. In RepDistiller's PyTorch network these are
`conv1`, `bn1`; `layer{s}.{b}` with `conv1`, `bn1` and so on; `conv2`, `bn2`; `linear`.
"""

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

# Channels of stages 1 to 3 and of the last convolution, by the paper's width.
SIZES = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
}


class SplitUnit(nn.Module):
    """1x1, 3x3 depthwise and 1x1 on the second half of the channels, then a shuffle.

    Returns the activation after and before the last ReLU, which spares the first half;
    that half comes out of ReLUs already, so the one is the ReLU of the other.
    """

    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        normed = conv_norms(self.norm, train, self.axis_name)
        untouched, y = jnp.split(x, 2, axis=-1)
        half = y.shape[-1]
        y = nn.relu(normed(y, "conv1", half))
        y = normed(y, "conv2", half, 3, groups=half)
        y = normed(y, "conv3", half)
        pre = channel_shuffle(jnp.concatenate([untouched, y], axis=-1), 2)
        y = jnp.concatenate([untouched, nn.relu(y)], axis=-1)
        return channel_shuffle(y, 2), pre


class DownUnit(nn.Module):
    """Two branches at stride 2, each giving half of `channels`, then a shuffle."""

    channels: int
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        normed = conv_norms(self.norm, train, self.axis_name)
        before, half = x.shape[-1], self.channels // 2
        left = normed(x, "conv1", before, 3, 2, before)
        left = nn.relu(normed(left, "conv2", half))
        right = nn.relu(normed(x, "conv3", half))
        right = normed(right, "conv4", half, 3, 2, half)
        right = nn.relu(normed(right, "conv5", half))
        return channel_shuffle(jnp.concatenate([left, right], axis=-1), 2)


class ShuffleNetV2Cifar(nn.Module):
    """ShuffleNetV2 with named activations, as the CIFAR-100 tables have it.

    Ma et al. 2018, "ShuffleNet V2", arXiv 1807.11164. What differs from the paper, and
    is of the tables (Tian et al. 2020, arXiv 1910.10699): the stem is a 1x1 convolution
    that keeps the resolution, without pooling.

    channels: of stages 1 to 3 and of the last 1x1 convolution; see `SIZES`.
    blocks: of stages 1 to 3, the one that halves the resolution among them.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage3" `[batch, height,
    width, channels]` after ReLU (32, 16, 8 and 4 pixels a side for images of 32),
    "stage1_pre" to "stage3_pre" before that ReLU, channels in the same order (in
    RepDistiller they are before the last shuffle), and "embedding" `[batch, last]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    channels: tuple[int, int, int, int] = SIZES[1.0]
    blocks: tuple[int, int, int] = (4, 8, 4)
    classes: int = 100
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        ok = len(self.channels) == 4 and all(c >= 2 for c in self.channels)
        ok = ok and all(c % 2 == 0 for c in self.channels[:3])
        require(ok, "channels", "three even numbers and the last", self.channels)
        ok = len(self.blocks) == 3 and min(self.blocks) >= 2
        require(ok, "blocks", "three numbers, each at least 2", self.blocks)
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
        for stage, blocks in enumerate(self.blocks, 1):
            channels = self.channels[stage - 1]
            name = f"stage{stage}_block0"
            x = DownUnit(channels, self.norm, self.axis_name, name=name)(x, train)
            for block in range(1, blocks):
                name = f"stage{stage}_block{block}"
                unit = SplitUnit(self.norm, self.axis_name, name=name)
                x, taps[f"stage{stage}_pre"] = unit(x, train)
            taps[f"stage{stage}"] = x
        x = nn.relu(normed(x, "last_conv", self.channels[3]))
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps
