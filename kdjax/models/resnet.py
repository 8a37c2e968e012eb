"""ResNet 18 to 152 for ImageNet, in the version that PyTorch made usual (v1.5)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require
from kdjax.models.imagenet_layers import NORMS, conv, norm

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Block(nn.Module):
    """A basic block (3x3, 3x3) or a bottleneck (1x1, 3x3, 1x1), ReLU after the sum.

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
        make_norm = _norm(self.norm, train, self.axis_name, self.keras)
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strided = 2 if self.bottleneck and not self.keras else 1
        out = 4 * self.channels if self.bottleneck else self.channels
        y = x
        for i, kernel in enumerate(kernels, 1):
            last = i == len(kernels)
            channels = out if last else self.channels
            stride = self.stride if i == strided else 1
            y = conv(channels, kernel, stride, bias=self.keras, name=f"conv{i}")(y)
            y = make_norm(name=f"norm{i}")(y)
            y = y if last else nn.relu(y)
        if self.stride != 1 or x.shape[-1] != out:
            x = conv(out, 1, self.stride, bias=self.keras, name="shortcut_conv")(x)
            x = make_norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network for large images with named activations.

    He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition",
    arXiv 1512.03385, with the stride of a bottleneck on its 3x3 (as PyTorch has it).

    depth: layers, a key of `BLOCKS`.
    classes: number of logits.
    norm: "batch" (momentum 0.9) or "group" (32 groups); eps 1e-5.
    keras: the older form, whose weights Keras published: stride on the first 1x1,
        biases in all convolutions, eps 1e-3. Its weights do not fit the usual form, nor
        the other way round.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" (after the max-pooling) and "stage1" to
    "stage4" `[batch, height, width, channels]` after ReLU, and "embedding" `[batch,
    512 or 2048]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 50
    classes: int = 1000
    norm: str = "batch"
    keras: bool = False
    axis_name: str | None = None

    def __post_init__(self) -> None:
        require(self.depth in BLOCKS, "depth", f"one of {sorted(BLOCKS)}", self.depth)
        require(self.classes >= 1, "classes", "at least 1", self.classes)
        require(self.norm in NORMS, "norm", "batch or group", self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        expected = "[batch, height, width, channels]"
        require(images.ndim == 4, "images", expected, images.shape)
        x = conv(64, 7, 2, bias=self.keras, name="stem_conv")(images)
        x = _norm(self.norm, train, self.axis_name, self.keras)(name="stem_norm")(x)
        # Zero is as good a padding as minus infinity: nothing is below it.
        x = jnp.pad(nn.relu(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), (2, 2))
        taps = {"stem": x}
        for stage, blocks in enumerate(BLOCKS[self.depth], 1):
            for block in range(blocks):
                x = Block(
                    channels=64 * 2 ** (stage - 1),
                    bottleneck=self.depth >= 50,
                    stride=2 if stage > 1 and block == 0 else 1,
                    norm=self.norm,
                    keras=self.keras,
                    axis_name=self.axis_name,
                    name=f"stage{stage}_block{block + 1}",
                )(x, train)
            taps[f"stage{stage}"] = x
        taps["embedding"] = x.mean((1, 2))
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps


def _norm(kind: str, train: bool, axis_name: str | None, keras: bool) -> partial:
    epsilon = 1e-3 if keras else 1e-5
    return partial(norm, kind, train, axis_name=axis_name, epsilon=epsilon)
