"""Sums and means over the entries that a mask selects.

Entries left out are replaced, not multiplied by zero: a NaN in one of them reaches
neither the value nor the gradient. A NaN in an entry that counts is kept, and shows.
Over an empty selection the sum and the mean are 0 with gradient 0.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks, collectives
from kdjax.core.numerics import promote
from kdjax.core.types import Array

Axis = int | Sequence[int] | None


def _axes(values: Array, axis: Axis) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(values.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def masked_sum(
    values: Array,
    axis: Axis = None,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """The sum of the selected values, in at least float32.

    Args:
        values: any shape.
        axis: the axis or axes to sum over; all of them by default.
        where: bool, broadcastable to `values`; everything by default.
        axis_name: the mapped axis that divides the values over devices, if any.

    Example:
        >>> keep = jnp.array([True, False, True])
        >>> print(masked_sum(jnp.array([1.0, jnp.nan, 2.0]), where=keep))
        3.0
    """
    values = promote(values)
    if where is not None:
        checks.mask("where", where, values.shape)
        values = jnp.where(jnp.broadcast_to(where, values.shape), values, 0)
    return collectives.total(jnp.sum(values, _axes(values, axis)), axis_name)


def masked_count(
    values: Array,
    axis: Axis = None,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Number of selected entries, in the dtype of the sums; at least 1.

    Integers are counted, since float32 cannot count beyond 2^24.
    """
    dtype, axes = promote(values).dtype, _axes(values, axis)
    if where is None:
        count = math.prod(values.shape[i] for i in axes)
        devices = 1 if axis_name is None else lax.axis_size(axis_name)
        return jnp.asarray(max(count * devices, 1), dtype)
    selected = jnp.broadcast_to(where, values.shape)
    count = jnp.sum(selected, axes, dtype=jnp.int32)
    count = collectives.total(count, axis_name)
    return jnp.maximum(count, 1).astype(dtype)


def masked_mean(
    values: Array,
    axis: Axis = None,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """The mean of the selected values, in at least float32; 0 where none is.

    Args:
        values: any shape.
        axis: the axis or axes to average over; all of them by default.
        where: bool, broadcastable to `values`; everything by default.
        axis_name: as in `masked_sum`.

    Example:
        >>> keep = jnp.array([[True, False], [False, False]])
        >>> print(masked_mean(jnp.array([[4.0, 9.0], [9.0, 9.0]]), 1, keep))
        [4. 0.]
    """
    total = masked_sum(values, axis, where, axis_name)
    return total / masked_count(values, axis, where, axis_name)
