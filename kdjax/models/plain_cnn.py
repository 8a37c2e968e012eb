"""Plain convolutional networks without shortcuts, a small teacher and student pair.

The pair is ours. The slides that compare distillation losses on CIFAR-10 with a plain
teacher and student give their accuracies (75 and 63 %) and no architecture, size or
recipe; `TEACHER` and `STUDENT` (261 834 and 5 466 parameters for 10 classes) are not
tuned to those accuracies, which were not measured with them.

Parameters: `stage{s}_conv{i}` and `stage{s}_norm{i}`, s from 1 and i from 0; `head`.
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

TEACHER = ((64, 64), (128, 128))
STUDENT = ((16,), (32,))


class PlainCnn(nn.Module):
    """3x3 convolutions with norm and ReLU; each stage but the last ends in a pooling.

    channels: of the convolutions of each stage. `TEACHER` has four of them, `STUDENT`
        two; their stages have the same resolution, so taps of one name can be compared.
    classes: number of logits.
    norm: "batch" (momentum 0.9, which is 0.1 in PyTorch) or "group"; eps 1e-5.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stage1", "stage2", ... `[batch, height, width,
    channels]` after ReLU and before the 2x2 max pooling, "stage1_pre", ... before that
    ReLU, and "embedding" `[batch, last channels]`, the mean of the last over positions.
    There is no stem.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    channels: tuple[tuple[int, ...], ...] = TEACHER
    classes: int = 10
    norm: str = "batch"
    axis_name: str | None = None

    def __post_init__(self) -> None:
        ok = len(self.channels) >= 1 and all(self.channels)
        ok = ok and all(c >= 1 for stage in self.channels for c in stage)
        expected = "one convolution or more in each stage, of 1 channel or more"
        require(ok, "channels", expected, self.channels)
        require_common(self.classes, self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)
        least = 2 ** (len(self.channels) - 1)
        ok = min(images.shape[1:3]) >= least
        require(ok, "images", f"at least {least} pixels a side", images.shape)
        normed = conv_norms(self.norm, train, self.axis_name)
        x, taps = images, {}
        for stage, widths in enumerate(self.channels, 1):
            x = x if stage == 1 else nn.max_pool(x, (2, 2), (2, 2))
            for index, width in enumerate(widths):
                pre = normed(x, f"stage{stage}_conv{index}", width, 3)
                taps[f"stage{stage}_pre"] = pre
                x = nn.relu(pre)
            taps[f"stage{stage}"] = x
        taps["embedding"] = mean_pool(x)
        return nn.Dense(self.classes, name="head")(taps["embedding"]), taps
