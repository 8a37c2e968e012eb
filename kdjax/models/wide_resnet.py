"""Wide residual networks (WRN-d-k): pre-activation blocks, 6n + 4 layers.

Their 3x3 convolutions may be cheap ones, of Moonshine (arXiv 1711.02613).

Parameters: `stem_conv`; `stage{s}_block{b}` (b from 0) with `norm1`, `conv1`, `norm2`,
`conv2`, and `shortcut` where the width changes; `norm`; `head`. In RepDistiller's and
Yang's PyTorch networks these are `conv1`, `block{s}.layer.{b}` with `bn1`, `conv1`,
`bn2`, `conv2`, `convShortcut`; `bn1`; `fc`.
"""

import re
from typing import NamedTuple

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


class Cheap(NamedTuple):
    """A cheap convolution by its name, such as `g4`, `a2`, `b2` or `g4b2`.

    size: channels of a group, "g"; 0: the number of groups is given.
    groups: their number, "a".
    bottleneck: 1x1 convolutions to the width divided by this, and back, "b"; 0: none.
    """

    size: int
    groups: int
    bottleneck: int

    @classmethod
    def from_name(cls, name: str) -> "Cheap":
        """Raises ConfigError of `convs` for a name that is none."""
        pattern = r"(?:(?P<kind>[ga])(?P<n>[1-9]\d*))?(?:b(?P<b>[1-9]\d*))?"
        found = re.fullmatch(pattern, name)
        expected = "gN (N channels a group), aN (N groups), bN or gNbN, aNbN"
        require(bool(found and name), "convs", expected, name)
        assert found is not None
        n = int(found["n"] or 1)
        by_size = found["kind"] == "g"
        return cls(n if by_size else 0, 0 if by_size else n, int(found["b"] or 0))

    def count_groups(self, inputs: int, outputs: int) -> tuple[int, int]:
        """The channels of the 3x3 convolution and its groups.

        Raises ConfigError of `convs` where they do not divide.
        """
        divides = not self.bottleneck or outputs % self.bottleneck == 0
        expected = f"a bottleneck that divides {outputs} channels"
        require(divides, "convs", expected, self.bottleneck)
        width = outputs // self.bottleneck if self.bottleneck else inputs
        part = self.size or self.groups
        expected = f"groups that divide the {width} channels of a convolution"
        require(width % part == 0, "convs", expected, part)
        return width, width // self.size if self.size else self.groups


class CheapConv(nn.Module):
    """A grouped 3x3 and a 1x1 convolution in place of a 3x3 one.

    With a bottleneck, a 1x1 convolution to fewer channels comes first. Norm and ReLU
    stand between the convolutions. `g1` is a depthwise separable convolution.
    """

    channels: int
    stride: int
    convs: str
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def active(y: jax.Array, name: str) -> jax.Array:
            return nn.relu(norm(self.norm, y.shape[-1], train, self.axis_name, name)(y))

        cheap = Cheap.from_name(self.convs)
        width, groups = cheap.count_groups(x.shape[-1], self.channels)
        if cheap.bottleneck:
            x = active(conv(width, 1, name="reduce")(x), "norm1")
        x = conv(width, 3, self.stride, groups, name="grouped")(x)
        return conv(self.channels, 1, name="expand")(active(x, "norm2"))


class WideBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution twice, added to a shortcut.

    Returns the sum `[batch, ceil(height / stride), ..., channels]`, and the input after
    the first norm, before and after ReLU. The shortcut is the identity of the raw input
    or, where the width changes, a 1x1 projection of the activated input. With `convs`,
    both convolutions are a `CheapConv` of that name.
    """

    channels: int
    stride: int = 1
    norm: str = "batch"
    axis_name: str | None = None
    convs: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def normed(y: jax.Array, name: str) -> jax.Array:
            return norm(self.norm, y.shape[-1], train, self.axis_name, name)(y)

        def conv3(y: jax.Array, stride: int, name: str) -> jax.Array:
            if not self.convs:
                return conv(self.channels, 3, stride, name=name)(y)
            options = (self.convs, self.norm, self.axis_name)
            return CheapConv(self.channels, stride, *options, name=name)(y, train)

        pre = normed(x, "norm1")
        active = nn.relu(pre)
        y = conv3(active, self.stride, "conv1")
        y = conv3(nn.relu(normed(y, "norm2")), 1, "conv2")
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
    convs: cheap 3x3 convolutions of the blocks, as `Cheap` reads them: `g4b2` has
        groups of 4 channels at half the width. Stem and shortcuts stay as they are.
        Empty: full convolutions.

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
    convs: str = ""

    def __post_init__(self) -> None:
        ok = self.depth >= 10 and (self.depth - 4) % 6 == 0
        require(ok, "depth", "6n + 4 with n >= 1", self.depth)
        require(self.factor >= 1, "factor", "at least 1", self.factor)
        require_common(self.classes, self.norm)
        if self.convs:
            cheap, before = Cheap.from_name(self.convs), 16
            for stage in (1, 2, 4):
                for inputs in (before, 16 * self.factor * stage):
                    cheap.count_groups(inputs, 16 * self.factor * stage)
                before = 16 * self.factor * stage
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
        options = (self.norm, self.axis_name, self.convs)
        stride, name = 1 if stage == 1 else 2, f"stage{stage}_block0"
        x, pre, active = WideBlock(channels, stride, *options, name=name)(x, train)
        for block in range(1, (self.depth - 4) // 6):
            name = f"stage{stage}_block{block}"
            x, _, _ = WideBlock(channels, 1, *options, name=name)(x, train)
        return x, pre, active
