"""VGG for 32x32 images, with a norm after every convolution and one linear layer.

Parameters: `stage{s}_conv{i}` (with bias) and `stage{s}_norm{i}`, s from 0 to 4 and i
from 0, where stage 0 is the stem; `head`. In RepDistiller's PyTorch networks these are
`block{s}.{3 i}`, `block{s}.{3 i + 1}` and `classifier`.
"""

import jax
from flax import linen as nn

from kdjax.config import require
from kdjax.models.layers import (
    conv_norms,
    mean_pool,
    require_common,
    require_images,
)

# Convolutions in the stem and in stages 1 to 4, by the number of layers with weights.
_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class Vgg(nn.Module):
    """VGG with named activations, as the CIFAR-100 distillation tables have it.

    Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale
    Image Recognition", arXiv 1409.1556, configurations A (11), B (13), D (16) and
    E (19); 8 layers are of Tian et al. 2020, arXiv 1910.10699. Three 2x2 max poolings
    (four on images of 64 pixels or more) and a mean over positions replace five
    poolings and the hidden linear layers.

    depth: 8, 11, 13, 16 or 19.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    width: channels of the stem; the stages have 2, 4, 8 and 8 times as many.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" and "stage1" to "stage4" `[batch, height,
    width, channels]` after ReLU and before pooling (32, 16, 8, 4 and 4 pixels a side
    for images of 32), "stage1_pre" to "stage4_pre" before that ReLU, and "embedding"
    `[batch, 8 * width]`.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    depth: int = 8
    classes: int = 100
    norm: str = "batch"
    axis_name: str | None = None
    width: int = 64

    def __post_init__(self) -> None:
        depths = ", ".join(map(str, _CONVOLUTIONS))
        require(self.depth in _CONVOLUTIONS, "depth", f"one of {depths}", self.depth)
        require(self.width >= 1, "width", "at least 1", self.width)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        sides = images.shape[1:3]
        require(min(sides) >= 8, "images", "at least 8 pixels a side", images.shape)
        poolings = 4 if min(sides) >= 64 else 3
        x, taps = images, {}
        for stage, convolutions in enumerate(_CONVOLUTIONS[self.depth]):
            if 1 <= stage <= poolings:
                x = nn.max_pool(x, (2, 2), (2, 2))
            pre = x
            for index in range(convolutions):
                pre = self._layer(x, stage, index, train)
                x = nn.relu(pre)
            if stage == 0:
                taps["stem"] = x
            else:
                taps |= {f"stage{stage}_pre": pre, f"stage{stage}": x}
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps

    def _layer(self, x: jax.Array, stage: int, index: int, train: bool) -> jax.Array:
        channels = self.width * min(2**stage, 8)
        normed = conv_norms(self.norm, train, self.axis_name, bias=True)
        return normed(x, f"stage{stage}_conv{index}", channels, 3)
