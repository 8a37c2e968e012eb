"""Feature maps of any layout, brought to `[batch, positions, channels]`."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote_together
from kdjax.core.types import Array


class Maps(NamedTuple):
    """Two maps as `[batch, positions, channels]`, in one dtype of at least float32.

    Entries left out are 0. `keep` is the mask of the student's shape and
    `teacher_keep` that of the teacher's; both None where everything takes part.
    """

    student: Array
    teacher: Array
    keep: Array | None
    teacher_keep: Array | None


def channel_axis(axis: int, name: str, x: Array) -> int:
    """The non-negative axis of the channels, which the batch axis cannot be."""
    axis = checks.axis(axis, name, x)
    if axis == 0:
        checks.refuse("axis", "the axis of the channels", "the batch axis 0")
    return axis


def check_maps(
    names: tuple[str, str],
    student: Array,
    teacher: Array,
    axis: int,
    where: Array | None,
    *,
    rank: int = 3,
    same_channels: bool = True,
) -> int:
    """Refuse a pair of maps that do not match; the non-negative channel axis."""
    for name, x in zip(names, (student, teacher), strict=True):
        checks.floating(name, x)
    checks.rank(names[0], student, rank, at_least=True)
    checks.not_empty(names[0], student)
    axis = channel_axis(axis, names[0], student)
    if same_channels or teacher.ndim != student.ndim:
        checks.same_shape(names[1], teacher, names[0], student)
    else:
        checks.not_empty(names[1], teacher)
        expected = list(student.shape)
        expected[axis] = teacher.shape[axis]
        checks.shape(names[1], teacher, tuple(expected))
    for x in (student, teacher):
        checks.mask("where", where, x.shape)
    return axis


def as_positions(x: Array, axis: int) -> Array:
    """`[batch, ..., channels]`, channels at `axis`, as `[batch, positions, channels]`.

    Example:
        >>> print(as_positions(jnp.ones((2, 8, 4, 4)), axis=1).shape)
        (2, 16, 8)
    """
    x = jnp.moveaxis(x, axis, -1)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def keep_positions(where: Array | None, shape: tuple[int, ...], axis: int):
    """A mask broadcast to `shape`, as `[batch, positions, channels]`."""
    return None if where is None else as_positions(jnp.broadcast_to(where, shape), axis)


def apply_mask(x: Array, keep: Array | None) -> Array:
    """`x` with 0 where it is left out."""
    return x if keep is None else jnp.where(keep, x, 0)


def any_valid(keep: Array | None, axis: int | tuple[int, ...]) -> Array | None:
    """The mask reduced along `axis` by "or"; None where everything takes part."""
    return None if keep is None else jnp.any(keep, axis)


def rescale(x: Array) -> Array:
    """`[batch, positions, channels]` with maps beyond 1 scaled to a maximum of 1.

    For what is normalized afterwards, so that no value and no gradient changes: high
    powers of large maps would overflow float32.
    """
    largest = jnp.max(jnp.abs(x), (1, 2), keepdims=True)
    return x / lax.stop_gradient(jnp.where(largest > 1, largest, 1))


def subtract_and_snap(a: Array, b: Array) -> Array:
    """`a - b` of entries of vectors of length 1, and 0 within their rounding.

    A norm or an absolute value has its full gradient at any distance but 0: without
    this, two sides that agree would be driven by their last digit.
    """
    gap = a - b
    return jnp.where(jnp.abs(gap) <= 8 * jnp.finfo(gap.dtype).eps, 0, gap)


def map_pair(
    student: Array,
    teacher: Array,
    axis: int,
    where: Array | None,
    *,
    kind: str = "features",
    rank: int = 3,
    same_channels: bool = True,
) -> Maps:
    """Check `student_<kind>` and `teacher_<kind>` and bring them into one form."""
    names = (f"student_{kind}", f"teacher_{kind}")
    axis = check_maps(
        names, student, teacher, axis, where, rank=rank, same_channels=same_channels
    )
    keep = keep_positions(where, student.shape, axis)
    teacher_keep = keep_positions(where, teacher.shape, axis)
    student, teacher = promote_together(student, teacher)
    return Maps(
        apply_mask(as_positions(student, axis), keep),
        apply_mask(as_positions(teacher, axis), teacher_keep),
        keep,
        teacher_keep,
    )


def per_channel(name: str, x: Array, pair: Maps) -> Array:
    """A scalar or `[channels]` array, ready to broadcast against the maps.

    The value of a channel that is left out everywhere could be NaN, which a weight of
    zero would not stop: it is replaced.
    """
    checks.floating(name, x)
    channels = pair.student.shape[-1]
    if x.ndim != 0:
        checks.shape(name, x, (channels,))
    x = jnp.broadcast_to(x, (channels,)).astype(pair.student.dtype)
    return apply_mask(x, any_valid(pair.keep, (0, 1)))[None, None, :]


def _bins(size: int, bins: int) -> np.ndarray:
    """`[bins, size]` weights of a mean over bins as equal as whole numbers allow."""
    weights = np.zeros((bins, size))
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def adaptive_mean(x: Array, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Means over bins along `axes`, as many bins as `sizes` says.

    Bin i of n covers `floor(i H / n)` to `ceil((i + 1) H / n)`, so bins may overlap;
    that is torch's adaptive average pooling. A size may exceed the axis: then values
    repeat.

    Example:
        >>> print(adaptive_mean(jnp.arange(5.0), (2,), (0,)))
        [1. 3.]
    """
    for size, axis in zip(sizes, axes, strict=True):
        if x.shape[axis] != size:
            weights = jnp.asarray(_bins(x.shape[axis], size), x.dtype)
            mean = jnp.tensordot(weights, x, (1, axis), precision=lax.Precision.HIGHEST)
            x = jnp.moveaxis(mean, 0, axis)
    return x
