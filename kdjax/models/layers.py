"""Parts that the networks share: convolutions padded as in PyTorch, norms, checks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require

# First values of the kernels: of the CIFAR networks, and of those for large images.
_FAN_IN = nn.initializers.he_normal()
FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def group_count(channels: int) -> int:
    """GroupNorm groups: the largest divisor of `channels` that is at most 8 and leaves
    two channels or more in a group; 1 where there is none."""
    most = min(8, max(1, channels // 2))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def norm(
    kind: str,
    channels: int,
    train: bool,
    axis_name: str | None = None,
    name: str | None = None,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    groups: int | None = None,
) -> nn.Module:
    """BatchNorm, or GroupNorm, whose statistics have no state.

    kind: "batch" or "group".
    channels: those of the input.
    groups: of GroupNorm, then with the variance taken in a second pass; None makes
        `group_count(channels)` of them.
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    momentum: share of the old running statistics, 1 minus what PyTorch calls momentum.
    """
    if kind == "group":
        fast = groups is None
        count = group_count(channels) if groups is None else groups
        return nn.GroupNorm(count, epsilon=epsilon, use_fast_variance=fast, name=name)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        name=name,
    )


def conv(
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    name: str | None = None,
    *,
    padding: str | Sequence[tuple[int, int]] | None = None,
    init: nn.initializers.Initializer = _FAN_IN,
) -> nn.Conv:
    """A square convolution with `kernel // 2` pixels of padding on every side.

    This is the padding of PyTorch's networks. "SAME" is TensorFlow's: it pads only the
    far side of even images at stride 2, and weights cannot be exchanged. With `groups`
    the kernel is `[kernel, kernel, channels in / groups, channels]`.
    """
    margin = (kernel // 2, kernel // 2)
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding=(margin, margin) if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=init,
        name=name,
    )


def conv_norms(
    kind: str,
    train: bool,
    axis_name: str | None,
    norm_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Callable[..., jax.Array]:
    """`(x, name, channels, kernel=1, stride=1, groups=1) -> array`: a convolution of
    that name, and its norm, whose name has "norm" for "conv".

    kind, train, axis_name, norm_options: of every `norm`; options: of every `conv`.
    """

    def normed(
        x: jax.Array,
        name: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> jax.Array:
        x = conv(channels, kernel, stride, groups, name=name, **options)(x)
        name = name.replace("conv", "norm")
        return norm(kind, channels, train, axis_name, name, **(norm_options or {}))(x)

    return normed


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel `g * size + i` becomes `i * groups + g`, size = channels / groups.

    `[..., channels]` -> `[..., channels]`; the groups end up interleaved.
    """
    size = x.shape[-1] // groups
    parts = x.reshape(*x.shape[:-1], groups, size)
    return jnp.swapaxes(parts, -1, -2).reshape(x.shape)


def mean_pool(x: jax.Array) -> jax.Array:
    """The mean over positions, `[batch, ..., channels]` to `[batch, channels]`."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


def require_common(classes: int, norm: str) -> None:
    """Check the fields that every network has."""
    require(classes >= 1, "classes", "at least 1", classes)
    require(norm in ("batch", "group"), "norm", "batch or group", norm)


def require_images(images: jax.Array) -> None:
    """Refuse anything but `[batch, height, width, channels]`."""
    shape = "[batch, height, width, channels]"
    require(images.ndim == 4, "images", shape, images.shape)
