"""ResNet 18 to 152 in four stages, in the version that PyTorch made usual (v1.5)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import FAN_OUT, conv_norms, require_common, require_images

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Block(nn.Module):
    """A basic block (3x3, 3x3) or a bottleneck (1x1, 3x3, 1x1); before its last ReLU.

    The stride is on the first 3x3, with `keras` on the first 1x1. The shortcut is the
    identity, or a projection with norm where the shape changes.
    """

    channels: int
    bottleneck: bool
    stride: int = 1
    norm: str = "batch"
    keras: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        normed = _conv_norms(self.norm, train, self.axis_name, self.keras)
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strided = 2 if self.bottleneck and not self.keras else 1
        out = 4 * self.channels if self.bottleneck else self.channels
        y = x
        for i, kernel in enumerate(kernels, 1):
            last = i == len(kernels)
            channels = out if last else self.channels
            stride = self.stride if i == strided else 1
            y = normed(y, f"conv{i}", channels, kernel, stride)
            y = y if last else nn.relu(y)
        if self.stride != 1 or x.shape[-1] != out:
            x = normed(x, "shortcut_conv", out, 1, self.stride)
        return x + y


class ResNet(nn.Module):
    """Residual network of four stages with named activations.

    He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition",
    arXiv 1512.03385, with the stride of a bottleneck on its 3x3 (as PyTorch has it).

    depth: layers, a key of `BLOCKS`.
    classes: number of logits.
    norm: "batch" (momentum 0.9) or "group" (32 groups); eps 1e-5.
    keras: the older form, whose weights Keras published: stride on the first 1x1,
        biases in all convolutions, eps 1e-3. Its weights do not fit the usual form, nor
        the other way round.
    small: for images of 32 or 64 pixels, as the CIFAR-100 tables have it: the stem is
        one 3x3 convolution of stride 1, without max-pooling.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" (after the max-pooling) and "stage1" to
    "stage4" `[batch, height, width, channels]` after ReLU, "stage1_pre" to "stage4_pre"
    before that ReLU, and "embedding" `[batch, 512 or 2048]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 50
    classes: int = 1000
    norm: str = "batch"
    keras: bool = False
    axis_name: str | None = None
    small: bool = False

    def __post_init__(self) -> None:
        require(self.depth in BLOCKS, "depth", f"one of {sorted(BLOCKS)}", self.depth)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        x = self._stem(images, train)
        taps = {"stem": x}
        for stage, blocks in enumerate(BLOCKS[self.depth], 1):
            for block in range(blocks):
                pre = Block(
                    channels=64 * 2 ** (stage - 1),
                    bottleneck=self.depth >= 50,
                    stride=2 if stage > 1 and block == 0 else 1,
                    norm=self.norm,
                    keras=self.keras,
                    axis_name=self.axis_name,
                    name=f"stage{stage}_block{block + 1}",
                )(x, train)
                x = nn.relu(pre)
                taps[f"stage{stage}_pre"] = pre
            taps[f"stage{stage}"] = x
        taps["embedding"] = x.mean((1, 2))
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps

    def _stem(self, images: jax.Array, train: bool) -> jax.Array:
        kernel, stride = (3, 1) if self.small else (7, 2)
        normed = _conv_norms(self.norm, train, self.axis_name, self.keras)
        x = nn.relu(normed(images, "stem_conv", 64, kernel, stride))
        if self.small:
            return x
        # Zero is as good a padding as minus infinity: nothing is below it.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return nn.max_pool(x, (3, 3), (2, 2))


def _conv_norms(
    kind: str, train: bool, axis_name: str | None, keras: bool
) -> Callable[..., jax.Array]:
    norm_options = {"epsilon": 1e-3 if keras else 1e-5, "groups": 32}
    return conv_norms(kind, train, axis_name, norm_options, init=FAN_OUT, bias=keras)
