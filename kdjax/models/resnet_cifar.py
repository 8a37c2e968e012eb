"""The ResNet of the CIFAR tables: three stages of basic blocks, 6n + 2 layers.

Parameters are named in the order of the calls: `Conv_0` and `BatchNorm_0` (or
`GroupNorm_0`) of the stem, `BasicBlock_k` with k counted through all stages, `Dense_0`.
In a block `Conv_0`, `Conv_1` and their norms are the two convolutions, `Conv_2` and
`BatchNorm_2` the projection, where there is one. In RepDistiller's PyTorch networks
these are `conv1`, `bn1`; `layer{s}.{b}` with k = (s - 1) n + b; `fc`; in a block
`conv1`, `bn1`, `conv2`, `bn2`, `downsample.0`, `downsample.1`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import (
    conv,
    mean_pool,
    norm,
    require_common,
    require_images,
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; their sum, before its ReLU.

    `[batch, height, width, any]` -> `[batch, ceil(height / stride), ..., channels]`.
    The shortcut is the identity; where the shape changes it is a 1x1 projection with
    norm, or with `pad` every `stride`-th pixel between channels of zeros.
    """

    channels: int
    stride: int = 1
    norm: str = "batch"
    axis_name: str | None = None
    pad: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def normed(y: jax.Array) -> jax.Array:
            return norm(self.norm, self.channels, train, self.axis_name)(y)

        y = nn.relu(normed(conv(self.channels, 3, self.stride)(x)))
        y = normed(conv(self.channels, 3)(y))
        if self.stride == 1 and x.shape[-1] == self.channels:
            return x + y
        if self.pad:
            more = self.channels - x.shape[-1]
            sides = (more // 2, more - more // 2)
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), sides))
        else:
            x = normed(conv(self.channels, 1, self.stride)(x))
        return x + y


class ResNetCifar(nn.Module):
    """CIFAR-style residual network with named activations.

    He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition",
    arXiv 1512.03385, section 4.2.

    depth: layers, 6n + 2 with n >= 1 blocks a stage.
    width: channels of the first stage; the others have 2 and 4 times as many.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    stem: channels before the first stage; None is `width`. The "x4" networks of the
        CIFAR-100 tables are width 64 with a stem of 32.
    pad: where the shape changes, shortcuts without parameters (option A of the paper:
        every second pixel between channels of zeros) instead of projections with norm
        (option B, that of the tables).

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage3" `[batch, height,
    width, channels]` after ReLU, "stage1_pre" to "stage3_pre" before that ReLU, and
    "embedding" `[batch, 4 * width]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 8
    width: int = 16
    classes: int = 10
    norm: str = "batch"
    axis_name: str | None = None
    stem: int | None = None
    pad: bool = False

    def __post_init__(self) -> None:
        ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
        require(ok, "depth", "6n + 2 with n >= 1", self.depth)
        require(self.width >= 1, "width", "at least 1", self.width)
        require(self.stem is None or self.stem >= 1, "stem", "at least 1", self.stem)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        stem = self.width if self.stem is None else self.stem
        x = conv(stem, 3)(images)
        x = nn.relu(norm(self.norm, stem, train, self.axis_name)(x))
        taps = {"stem": x}
        for stage in (1, 2, 3):
            channels = self.width * 2 ** (stage - 1)
            for block in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                options = (self.norm, self.axis_name, self.pad)
                pre = BasicBlock(channels, stride, *options)(x, train)
                x = nn.relu(pre)
                taps[f"stage{stage}_pre"] = pre
            taps[f"stage{stage}"] = x
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes)(taps["embedding"]), taps
