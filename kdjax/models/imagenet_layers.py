"""Pieces that the ImageNet networks share: convolution and normalisation by kind."""

from collections.abc import Sequence

from flax import linen as nn

NORMS = ("batch", "group")


def conv(
    channels: int,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    bias: bool = False,
    padding: str | Sequence[tuple[int, int]] | None = None,
) -> nn.Conv:
    """A square convolution, padded by (kernel - 1) // 2 on every side.

    padding: what else flax takes. "SAME" is TensorFlow's, which at stride 2 pads even
    sides at the far end only.
    """
    side = (kernel - 1) // 2
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding=[(side, side)] * 2 if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


def norm(
    kind: str,
    train: bool,
    *,
    name: str,
    axis_name: str | None = None,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    groups: int = 32,
) -> nn.Module:
    """BatchNorm, or GroupNorm in `groups` groups, whose statistics have no state.

    momentum: share of the old running statistics, 1 minus what PyTorch calls momentum.
    """
    if kind == "group":
        return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, name=name)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        name=name,
    )
