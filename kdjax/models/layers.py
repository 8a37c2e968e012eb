"""Parts that the networks share: convolutions padded as in PyTorch, norms, checks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


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
) -> nn.Module:
    """BatchNorm (momentum 0.9, which is 0.1 in PyTorch) or GroupNorm; eps 1e-5.

    kind: "batch" or "group".
    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    """
    if kind == "group":
        groups = group_count(channels)
        return nn.GroupNorm(num_groups=groups, epsilon=1e-5, name=name)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
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
) -> nn.Conv:
    """A square convolution with `kernel // 2` pixels of padding on every side.

    This is the padding of the published networks. "SAME" would pad only the far side
    of even images at stride 2, and weights could not be exchanged. With `groups` the
    kernel is `[kernel, kernel, channels in / groups, channels]`.
    """
    margin = (kernel // 2, kernel // 2)
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding=(margin, margin),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel `g * size + i` goes to place `i * groups + g`, size = channels / groups.

    `[..., channels]` -> `[..., channels]`; the groups end up interleaved.
    """
    size = x.shape[-1] // groups
    parts = x.reshape(*x.shape[:-1], groups, size)
    return jnp.swapaxes(parts, -1, -2).reshape(x.shape)


def mean_pool(x: jax.Array) -> jax.Array:
    """`[batch, height, width, channels]` -> `[batch, channels]`, mean over places."""
    return jnp.mean(x, axis=(1, 2))


def require(ok: bool, field: str, expected: str, got: Any) -> None:
    """ValueError "field: expected ..., got ..." unless `ok`."""
    if not ok:
        raise ValueError(f"{field}: expected {expected}, got {got!r}")


def require_common(classes: int, norm: str) -> None:
    """Check the fields that every network has."""
    require(classes >= 1, "classes", "at least 1", classes)
    require(norm in ("batch", "group"), "norm", "batch or group", norm)


def require_images(images: jax.Array) -> None:
    """Refuse anything but `[batch, height, width, channels]`."""
    shape = "[batch, height, width, channels]"
    require(images.ndim == 4, "images", shape, images.shape)
