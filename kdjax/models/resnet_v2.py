"""The BiT ResNet-v2: GroupNorm, weight standardization, pre-activation bottlenecks.

Names and shapes of the variables are those of the published JAX networks.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require

BLOCKS = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_GROUPS = 32


def standardize(kernel: jax.Array, epsilon: float = 1e-10) -> jax.Array:
    """Kernel `[height, width, in, out]` with mean 0 and variance 1 for each output.

    (k - mean) / sqrt(var + epsilon), biased variance, in float32.
    """
    kernel = kernel.astype(jnp.float32)
    kernel = kernel - kernel.mean((0, 1, 2), keepdims=True)
    return kernel * jax.lax.rsqrt(
        jnp.square(kernel).mean((0, 1, 2), keepdims=True) + epsilon
    )


class StdConv(nn.Module):
    """Convolution by a standardized kernel, without bias, padded on every side."""

    channels: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        init = nn.initializers.lecun_normal()
        kernel = jnp.asarray(self.param("kernel", init, shape))
        side = (self.kernel - 1) // 2
        return jax.lax.conv_general_dilated(
            x,
            standardize(kernel).astype(x.dtype),
            (self.stride, self.stride),
            [(side, side)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class GroupNorm(nn.Module):
    """GroupNorm in 32 groups; statistics in float32, the variance in a second pass.

    flax's takes the variance as mean(x^2) - mean(x)^2 by default and keeps
    scale and bias as `[channels]`; published weights have `[1, 1, 1, channels]`.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        *_, channels = x.shape
        shape = (1, 1, 1, channels)
        scale = jnp.asarray(self.param("scale", nn.initializers.ones, shape))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, shape))
        groups = (*x.shape[:-1], _GROUPS, channels // _GROUPS)
        y = x.astype(jnp.float32).reshape(groups)
        y = y - y.mean((1, 2, 4), keepdims=True)
        y = y * jax.lax.rsqrt(
            jnp.square(y).mean((1, 2, 4), keepdims=True) + self.epsilon
        )
        return (y.reshape(x.shape) * scale + bias).astype(x.dtype)


class Bottleneck(nn.Module):
    """Norm, ReLU and convolution three times (1x1, 3x3, 1x1), plus a shortcut.

    The shortcut of a block's first unit is a projection of the normalized input; the
    stride is on the 3x3.
    """

    channels: int
    first: bool
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(GroupNorm(name="gn1")(x))
        if self.first:
            x = StdConv(4 * self.channels, 1, self.stride, name="conv_proj")(y)
        y = StdConv(self.channels, 1, name="conv1")(y)
        y = nn.relu(GroupNorm(name="gn2")(y))
        y = StdConv(self.channels, 3, self.stride, name="conv2")(y)
        y = nn.relu(GroupNorm(name="gn3")(y))
        return x + StdConv(4 * self.channels, 1, name="conv3")(y)


class Block(nn.Module):
    """The bottlenecks of one resolution, named unit01, unit02, ..."""

    units: int
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for unit in range(self.units):
            first = unit == 0
            stride = self.stride if first else 1
            name = f"unit{unit + 1:02d}"
            x = Bottleneck(self.channels, first, stride, name=name)(x)
        return x


class Root(nn.Module):
    """7x7 convolution of stride 2, then 3x3 max-pooling of stride 2."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = StdConv(self.channels, 7, 2, name="conv_root")(x)
        # Padded with zeros, not with minus infinity as flax would: there is no ReLU
        # before, so that the two differ at the borders.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return nn.max_pool(x, (3, 3), (2, 2))


class ResNetV2(nn.Module):
    """The ResNet of Big Transfer, teacher and student of arXiv 2106.05237.

    Kolesnikov et al. 2020, "Big Transfer (BiT): General Visual Representation
    Learning", arXiv 1912.11370. No BatchNorm, so no state and no `axis_name`; the
    head starts at zero. Images are expected in [-1, 1].

    depth: layers, a key of `BLOCKS`.
    width: factor of the channels (the x1, x2, x3 of the names).
    classes: number of logits.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage4" `[batch, height,
    width, channels]` before any norm, and "embedding" `[batch, 2048 * width]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 50
    width: int = 1
    classes: int = 1000

    def __post_init__(self) -> None:
        require(self.depth in BLOCKS, "depth", f"one of {sorted(BLOCKS)}", self.depth)
        require(self.width >= 1, "width", "at least 1", self.width)
        require(self.classes >= 1, "classes", "at least 1", self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del train
        expected = "[batch, height, width, channels]"
        require(images.ndim == 4, "images", expected, images.shape)
        x = Root(64 * self.width, name="root_block")(images)
        taps = {"stem": x}
        for stage, units in enumerate(BLOCKS[self.depth], 1):
            channels = 64 * self.width * 2 ** (stage - 1)
            stride = 1 if stage == 1 else 2
            x = Block(units, channels, stride, name=f"block{stage}")(x)
            taps[f"stage{stage}"] = x
        x = nn.relu(GroupNorm(name="norm-pre-head")(x))
        taps["embedding"] = x.mean((1, 2))
        init = nn.initializers.zeros
        head = nn.Dense(self.classes, kernel_init=init, name="head")
        return head(taps["embedding"]), taps
