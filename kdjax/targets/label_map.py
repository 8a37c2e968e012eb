"""Label-space maps: a teacher's logits in the classes of another student."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from kdjax.core import checks, collectives
from kdjax.core.numerics import promote
from kdjax.core.types import Array


def map_logits(
    teacher_logits: Array,
    class_map: Array,
    *,
    classes: int,
    temperature: float | Array = 1.0,
    axis: int = -1,
) -> Array:
    """Label-space map: the teacher's logits in the classes of the student.

    Class k of the result has the probability of all teacher classes that map to it:
    `z_k = T log sum_i exp(teacher_logits_i / T)` over the `i` with `class_map[i] = k`.
    Teacher classes that map to none are left out, so the softmax of the result is the
    teacher's distribution given the others. A student class without any has minus
    infinity, probability 0.

    One teacher class for each student class makes a selection, the same at every
    temperature. Several are merged: at temperature `T` pass it here and to the loss.

    Args:
        teacher_logits: `[..., teacher classes]`, before any softmax. Classes may be
            ruled out with minus infinity.
        class_map: integer `[teacher classes]`, the student's class of each; negative
            for none. A constant is checked and may avoid all sums; traced, ids of
            `classes` or more count as none.
        classes: the number of the student's classes.
        temperature: `T`, a scalar above 0, of effect on merged classes alone.
        axis: the axis of the classes.

    Returns:
        The logits with `classes` along the axis, at least float32. The gradient is
        exact: a teacher class has its share of its group.

    Raises:
        ValueError: if the logits are empty or not floating, the map is not one integer
            below `classes` for each teacher class, or the temperature is not above 0.

    Example:
        >>> logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
        >>> merged = map_logits(logits, jnp.array([0, 0, 1, -1]), classes=3)
        >>> print([f"{p:.2f}" for p in jnp.exp(merged)])
        ['0.30', '0.30', '0.00']
    """
    checks.floating("teacher_logits", teacher_logits)
    checks.not_empty("teacher_logits", teacher_logits)
    axis = checks.axis(axis, "teacher_logits", teacher_logits)
    checks.integer("class_map", class_map, "class ids")
    checks.shape("class_map", class_map, (teacher_logits.shape[axis],))
    checks.count("classes", classes)
    checks.below("class_map", class_map, classes)
    checks.temperature("temperature", temperature)
    logits = jnp.moveaxis(promote(teacher_logits), axis, -1)
    sources = _sources(class_map, classes)
    if sources is None:
        # Negative ids would count from the end; out of range they are dropped.
        ids = jnp.asarray(class_map).astype(jnp.int32)
        ids = jnp.where(ids < 0, classes, ids)
        temperature = jnp.asarray(temperature, logits.dtype)
        # JAX has no sharding rule for a scatter along several axes.
        merge = functools.partial(_merge, classes=classes)
        merge = collectives.on_auto_axes(merge, logits, logits.ndim - 1)
        mapped = merge(logits, ids, temperature)
    else:
        mapped = jnp.take(logits, sources, -1, mode="fill", fill_value=-jnp.inf)
    return jnp.moveaxis(mapped, -1, axis)


def _sources(class_map: Array, classes: int) -> np.ndarray | None:
    """The teacher class of each student class, out of range for none.

    None where a student class has several, or the map is traced.
    """
    if isinstance(class_map, Tracer):
        return None
    ids = np.asarray(class_map)
    known = np.flatnonzero(ids >= 0)
    sources = np.full(classes, len(ids), np.int32)
    sources[ids[known]] = known
    is_selection = np.count_nonzero(sources < len(ids)) == len(known)
    return sources if is_selection else None


def _merge(logits: Array, ids: Array, temperature: Array, *, classes: int) -> Array:
    """`T log sum exp(logits / T)` of the entries of each class, along the last axis."""
    empty = jnp.full((*logits.shape[:-1], classes), -jnp.inf, logits.dtype)
    top = empty.at[..., ids].max(lax.stop_gradient(logits), mode="drop")
    top = jnp.where(jnp.isneginf(top), 0, top)
    named = jnp.broadcast_to(ids < classes, logits.shape)
    possible = named & ~jnp.isneginf(logits)
    # Entries are relative to the top of their class, so that no sum is 0 by rounding.
    gap = jnp.where(possible, logits - jnp.take(top, ids, -1, mode="clip"), 0)
    share = jnp.where(possible, jnp.exp(gap / temperature), 0)
    total = jnp.zeros_like(empty).at[..., ids].add(share, mode="drop")
    none = total == 0
    merged = top + temperature * jnp.log(jnp.where(none, 1, total))
    return jnp.where(none, -jnp.inf, merged)
