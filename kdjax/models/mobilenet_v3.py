"""MobileNetV3 small and large, with BatchNorm or with GroupNorm."""

from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from kdjax.config import require
from kdjax.models import layers
from kdjax.models.efficientnet_lite import NORM_OPTIONS, rounded
from kdjax.models.layers import FAN_OUT, conv, require_common, require_images

conv_norms = partial(layers.conv_norms, norm_options=NORM_OPTIONS, init=FAN_OUT)


class Row(NamedTuple):
    """One block: a row of tables 1 and 2 of the paper."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


def _rows(text: str) -> tuple[Row, ...]:
    """Rows of "kernel expanded channels squeeze activation stride"."""
    rows = []
    for line in text.strip().splitlines():
        kernel, expanded, channels, squeeze, activation, stride = line.split()
        sizes = int(kernel), int(expanded), int(channels)
        rows.append(Row(*sizes, squeeze == "SE", activation == "HS", int(stride)))
    return tuple(rows)


ROWS = {
    "small": _rows("""
        3  16 16 SE RE 2
        3  72 24 -  RE 2
        3  88 24 -  RE 1
        5  96 40 SE HS 2
        5 240 40 SE HS 1
        5 240 40 SE HS 1
        5 120 48 SE HS 1
        5 144 48 SE HS 1
        5 288 96 SE HS 2
        5 576 96 SE HS 1
        5 576 96 SE HS 1
    """),
    "large": _rows("""
        3  16  16 -  RE 1
        3  64  24 -  RE 2
        3  72  24 -  RE 1
        5  72  40 SE RE 2
        5 120  40 SE RE 1
        5 120  40 SE RE 1
        3 240  80 -  HS 2
        3 200  80 -  HS 1
        3 184  80 -  HS 1
        3 184  80 -  HS 1
        3 480 112 SE HS 1
        3 672 112 SE HS 1
        5 672 160 SE HS 2
        5 960 160 SE HS 1
        5 960 160 SE HS 1
    """),
}
_HEAD = {"small": (576, 1024), "large": (960, 1280)}


class Squeeze(nn.Module):
    """Channels weighted by a hard sigmoid of what their means say."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        make = partial(conv, kernel=1, bias=True, init=FAN_OUT)
        y = x.mean((1, 2), keepdims=True)
        y = nn.relu(make(rounded(channels // 4), name="reduce")(y))
        return x * nn.hard_sigmoid(make(channels, name="expand")(y))


class Block(nn.Module):
    """Expansion (where it widens), depthwise convolution, squeeze, projection."""

    row: Row
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        row = self.row
        normed = conv_norms(self.norm, train, self.axis_name)
        activation = nn.hard_swish if row.hard_swish else nn.relu
        wide = row.expanded
        y = x
        if wide != x.shape[-1]:
            y = activation(normed(y, "expand_conv", wide))
        y = normed(y, "depthwise_conv", wide, row.kernel, row.stride, groups=wide)
        y = activation(y)
        y = Squeeze(name="squeeze")(y) if row.squeeze else y
        y = normed(y, "project_conv", row.channels)
        return x + y if x.shape == y.shape else y


class MobileNetV3(nn.Module):
    """MobileNetV3 with named activations.

    Howard et al. 2019, "Searching for MobileNetV3", arXiv 1905.02244. No dropout. With
    `norm="group"` it is the student of arXiv 2106.05237, table 3.

    size: "small" or "large".
    classes: number of logits.
    norm: "batch" (momentum 0.99) or "group" (8 groups); eps 1e-3.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1", ... `[batch, height, width,
    channels]`, the last block's output of each resolution (large: five, 1/2 to 1/32;
    small: four, 1/4 to 1/32), and "embedding" `[batch, 1024 or 1280]`, which the head
    reads.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    size: str = "large"
    classes: int = 1000
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        require(self.size in ROWS, "size", "small or large", self.size)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        normed = conv_norms(self.norm, train, self.axis_name)
        x = nn.hard_swish(normed(images, "stem_conv", 16, 3, 2))
        taps = {"stem": x}
        rows = ROWS[self.size]
        for i, row in enumerate(rows):
            if row.stride == 2 and i > 0:
                taps[f"stage{len(taps)}"] = x
            x = Block(row, self.norm, self.axis_name, name=f"block{i}")(x, train)
        taps[f"stage{len(taps)}"] = x
        last, hidden = _HEAD[self.size]
        x = nn.hard_swish(normed(x, "last_conv", last)).mean((1, 2))
        taps["embedding"] = nn.hard_swish(nn.Dense(hidden, name="hidden")(x))
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps
