"""Wide residual networks (WRN-d-k): pre-activation blocks, 6n + 4 layers.

Parameters: `stem_conv`; `stage{s}_block{b}` (b from 0) with `norm1`, `conv1`, `norm2`,
`conv2`, and `shortcut` where the width changes; `norm`; `head`. In RepDistiller's and
Yang's PyTorch networks these are `conv1`, `block{s}.layer.{b}` with `bn1`, `conv1`,
`bn2`, `conv2`, `convShortcut`; `bn1`; `fc`.
"""

import jax
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import (
    conv,
    mean_pool,
    norm,
    require_common,
    require_images,
)


class WideBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution twice, added to a shortcut.

    Returns the sum `[batch, ceil(height / stride), ..., channels]`, and the input after
    the first norm, before and after ReLU. The shortcut is the identity of the raw input
    or, where the width changes, a 1x1 projection of the activated input.
    """

    channels: int
    stride: int = 1
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def normed(y: jax.Array, name: str) -> jax.Array:
            return norm(self.norm, y.shape[-1], train, self.axis_name, name)(y)

        pre = normed(x, "norm1")
        active = nn.relu(pre)
        y = conv(self.channels, 3, self.stride, name="conv1")(active)
        y = conv(self.channels, 3, name="conv2")(nn.relu(normed(y, "norm2")))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = conv(self.channels, 1, self.stride, name="shortcut")(active)
        return x + y, pre, active


class WideResNet(nn.Module):
    """WRN-depth-factor with named activations.

    Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv 1605.07146; without
    dropout, as the CIFAR-100 distillation tables have it.

    depth: layers, 6n + 4 with n >= 1 blocks a stage.
    factor: stages have 16, 32 and 64 times `factor` channels.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`. A stage ends in a sum without norm or ReLU, which the
    next block norms and activates; so there are three taps of each:

    - "stem_raw", "stage1_raw" to "stage3_raw": the sum (RepDistiller's features);
    - "stage1_pre" to "stage3_pre": after the next norm (its features before ReLU);
    - "stem", "stage1" to "stage3": after the next norm and ReLU.

    "embedding" `[batch, 64 * factor]` is the mean of "stage3" over positions.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 16
    factor: int = 1
    classes: int = 100
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        ok = self.depth >= 10 and (self.depth - 4) % 6 == 0
        require(ok, "depth", "6n + 4 with n >= 1", self.depth)
        require(self.factor >= 1, "factor", "at least 1", self.factor)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        x = conv(16, 3, name="stem_conv")(images)
        taps = {"stem_raw": x}
        before = "stem"
        for stage in (1, 2, 3):
            x, pre, active = self._stage(x, stage, train)
            taps |= {f"stage{stage}_raw": x, f"{before}_pre": pre, before: active}
            before = f"stage{stage}"
        x = norm(self.norm, x.shape[-1], train, self.axis_name, "norm")(x)
        taps |= {"stage3_pre": x, "stage3": nn.relu(x)}
        del taps["stem_pre"]
        taps["embedding"] = mean_pool(taps["stage3"])
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps

    def _stage(
        self, x: jax.Array, stage: int, train: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The stage's sum, and its input as its first block norms and activates it."""
        channels = 16 * self.factor * 2 ** (stage - 1)
        first = WideBlock(
            channels,
            1 if stage == 1 else 2,
            self.norm,
            self.axis_name,
            name=f"stage{stage}_block0",
        )
        x, pre, active = first(x, train)
        for block in range(1, (self.depth - 4) // 6):
            name = f"stage{stage}_block{block}"
            x, _, _ = WideBlock(channels, 1, self.norm, self.axis_name, name=name)(
                x, train
            )
        return x, pre, active
