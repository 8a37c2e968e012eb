"""The ResNet of the CIFAR tables: three stages of basic blocks, 6n + 2 layers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# One pixel on every side, as the published networks have it. "SAME" would pad only
# the far side of even images at stride 2, and weights could not be exchanged.
_PADDING = ((1, 1), (1, 1))


def group_count(channels: int) -> int:
    """GroupNorm groups: the largest divisor of `channels` that is at most 8 and leaves
    two channels or more in a group; 1 where there is none."""
    most = min(8, max(1, channels // 2))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def _norm(kind: str, channels: int, train: bool, axis_name: str | None) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(num_groups=group_count(channels), epsilon=1e-5)
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name
    )


def _conv(channels: int, kernel: int, stride: int) -> nn.Conv:
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding=_PADDING if kernel == 3 else "VALID",
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum.

    `[batch, height, width, any]` -> `[batch, ceil(height / stride), ..., channels]`.
    The shortcut is the identity, or a 1x1 projection with norm where the shape changes.
    """

    channels: int
    stride: int = 1
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(y: jax.Array) -> jax.Array:
            return _norm(self.norm, self.channels, train, self.axis_name)(y)

        y = nn.relu(norm(_conv(self.channels, 3, self.stride)(x)))
        y = norm(_conv(self.channels, 3, 1)(y))
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = norm(_conv(self.channels, 1, self.stride)(x))
        return nn.relu(x + y)


class ResNetCifar(nn.Module):
    """CIFAR-style residual network with named activations.

    He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition",
    arXiv 1512.03385, section 4.2; with projection shortcuts (their option B).

    depth: layers, 6n + 2 with n >= 1 blocks a stage.
    width: channels of the first stage; the others have 2 and 4 times as many.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage3" `[batch, height,
    width, channels]` after ReLU, and "embedding" `[batch, 4 * width]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 8
    width: int = 16
    classes: int = 10
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
        _require(ok, "depth", "6n + 2 with n >= 1", self.depth)
        _require(self.width >= 1, "width", "at least 1", self.width)
        _require(self.classes >= 1, "classes", "at least 1", self.classes)
        _require(self.norm in ("batch", "group"), "norm", "batch or group", self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        shape = "[batch, height, width, channels]"
        _require(images.ndim == 4, "images", shape, images.shape)
        x = _conv(self.width, 3, 1)(images)
        x = nn.relu(_norm(self.norm, self.width, train, self.axis_name)(x))
        taps = {"stem": x}
        for stage in (1, 2, 3):
            channels = self.width * 2 ** (stage - 1)
            for block in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                x = BasicBlock(channels, stride, self.norm, self.axis_name)(x, train)
            taps[f"stage{stage}"] = x
        taps["embedding"] = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes)(taps["embedding"]), taps


def _require(ok: bool, field: str, expected: str, got: Any) -> None:
    if not ok:
        raise ValueError(f"{field}: expected {expected}, got {got!r}")
