"""The memory of contrastive distillation: what both networks last said of everything.

One entry per example of the data set and network, a pure value that the training step
carries with its parameters, may shard over its rows, and never differentiates.

    anchors = student(batch), teacher(batch)          # [N, D], the global batch
    entries = crd_memory_lookup(memory, ids, negatives)
    memory = crd_memory_calibrate(memory, *anchors, *entries)
    loss = crd(*anchors, ...)  # on those entries and constants
    memory = crd_memory_update(memory, *anchors, ids)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import l2_normalize, promote, promote_together
from kdjax.core.types import Array
from kdjax.losses._relations.crd import check_anchors, check_entries, entry_scores


class CRDMemory(NamedTuple):
    """CRD memory: both networks' embeddings of every example of a data set.

    student, teacher: `[examples, D]`, one row per example.
    student_constant, teacher_constant: the scalars `Z` of
        `crd`, 0 until `crd_memory_calibrate` has set them.

    Example:
        >>> crd_memory_init(jax.random.key(0), 6, 4).student.shape
        (6, 4)
    """

    student: Array
    teacher: Array
    student_constant: Array
    teacher_constant: Array


def crd_memory_init(
    key: Array, examples: int, width: int, dtype: Any = jnp.float32
) -> CRDMemory:
    """CRD memory with random rows, uniform within `sqrt(3 / width)`.

    Args:
        key: a random key.
        examples: how many examples the data set has.
        width: that of the embeddings.
        dtype: of the entries; the constants have at least float32.

    Example:
        >>> memory = crd_memory_init(jax.random.key(0), 50, 16)
        >>> print(memory.student.shape, memory.student_constant)
        (50, 16) 0.0
    """
    checks.count("examples", examples)
    checks.count("width", width)
    bound = (3 / width) ** 0.5
    shape = (2, examples, width)
    student, teacher = jax.random.uniform(key, shape, dtype, -bound, bound)
    # Two buffers, so that both can be donated.
    unset = [promote(jnp.zeros((), dtype)) for _ in range(2)]
    return CRDMemory(student, teacher, *unset)


def crd_memory_lookup(
    memory: CRDMemory, positives: Array, negatives: Array
) -> tuple[Array, Array]:
    """CRD memory entries of some examples, of student and teacher.

    Args:
        memory: the state.
        positives: integer `[N]`, the ids of the anchors.
        negatives: integer `[N, m]`, the ids to tell each from. Whoever draws them
            leaves out the anchor itself and, in the published setting, its class.

    Returns:
        Two arrays `[N, 1 + m, D]`, the positive first. An id outside the memory reads
        as NaN, so that it shows.

    Raises:
        ValueError: if ids are not integers or their shapes do not fit.

    Example:
        >>> memory = crd_memory_init(jax.random.key(0), 10, 2)
        >>> student, teacher = crd_memory_lookup(
        ...     memory, jnp.array([3]), jnp.array([[7, 1]])
        ... )
        >>> print(student.shape, teacher.shape)
        (1, 3, 2) (1, 3, 2)
    """
    for name, ids, axes in (("positives", positives, 1), ("negatives", negatives, 2)):
        checks.integer(name, ids)
        checks.rank(name, ids, axes)
    checks.shape("negatives", negatives, (positives.shape[0], negatives.shape[1]))
    positive_ids, negative_ids = (
        jnp.asarray(x).astype(jnp.int32) for x in (positives, negatives)
    )
    ids = jnp.concatenate([positive_ids[:, None], negative_ids], axis=1)
    # A negative id would count from the end.
    ids = jnp.where(ids < 0, memory.student.shape[0], ids)

    def entries(bank: Array) -> Array:
        return bank.at[ids].get(mode="fill", fill_value=jnp.nan)

    return entries(memory.student), entries(memory.teacher)


def crd_memory_calibrate(
    memory: CRDMemory,
    student_features: Array,
    teacher_features: Array,
    student_memory: Array,
    teacher_memory: Array,
    *,
    temperature: float | Array = 0.07,
) -> CRDMemory:
    """CRD memory with its constants set from a batch, unless they already are.

    `Z = examples mean(exp(<u, v> / temperature))` over all anchors of the global
    batch and all entries, positives included, for each network's anchors on the
    other's memory. Nothing of it is differentiated.

    Args:
        memory: the state.
        student_features: `[N, D]`, as given to `crd`.
        teacher_features: the same shape.
        student_memory: `[N, 1 + m, D]`, likewise.
        teacher_memory: the same shape.
        temperature: as there.

    Raises:
        ValueError: as `crd` does.

    Example:
        >>> memory = crd_memory_init(jax.random.key(0), 10, 2)
        >>> anchors, entries = jnp.zeros((1, 2)), jnp.zeros((1, 3, 2))
        >>> memory = crd_memory_calibrate(memory, anchors, anchors, entries, entries)
        >>> print(memory.student_constant)
        10.0
    """
    check_anchors(student_features, teacher_features)
    check_entries(student_features, student_memory, teacher_memory)
    checks.temperature("temperature", temperature)

    def constant(old: Array, anchors: Array, entries: Array) -> Array:
        anchors, entries = promote_together(anchors, entries)
        warmth = jnp.asarray(temperature, anchors.dtype)
        size = jnp.mean(jnp.exp(entry_scores(anchors, entries, warmth)))
        new = lax.stop_gradient(memory.student.shape[0] * size)
        return jnp.where(old > 0, old, new.astype(old.dtype))

    student = constant(memory.student_constant, student_features, teacher_memory)
    teacher = constant(memory.teacher_constant, teacher_features, student_memory)
    return memory._replace(student_constant=student, teacher_constant=teacher)


def _last_of_equals(ids: Array, examples: int) -> Array:
    """The ids, with foreign ones and all but the last of equal ones out of range.

    What is out of range gets numbers of its own, so that all are unique.
    """
    rows = jnp.arange(ids.size, dtype=jnp.int32)
    later = rows[None, :] > rows[:, None]
    again = jnp.any((ids[:, None] == ids[None, :]) & later, axis=1)
    outside = (ids < 0) | (ids >= examples)
    return jnp.where(again | outside, examples + rows, ids)


def crd_memory_update(
    memory: CRDMemory,
    student_features: Array,
    teacher_features: Array,
    positives: Array,
    *,
    momentum: float | Array = 0.5,
) -> CRDMemory:
    """CRD memory after a batch: a moving average of the embeddings.

    `normalize(momentum old + (1 - momentum) normalize(new))`; all other rows stay as
    they are, bitwise. No gradient comes back from here. Call it after the loss.

    Where an id occurs more than once in the batch its last row counts, whatever the
    layout of the devices. An id outside the memory (-1 for a padded row) changes
    nothing. Under `jax.pmap` or `jax.shard_map` gather features and ids first: then
    every device makes the same update.

    Args:
        memory: the state.
        student_features: `[N, D]` embeddings of the global batch, of any length.
        teacher_features: the same shape.
        positives: integer `[N]`, the ids of these examples.
        momentum: a number in [0, 1]; 0.5 is the authors'.

    Raises:
        ValueError: if shapes do not fit, a dtype is wrong, or the momentum lies
            outside [0, 1].

    Example:
        >>> memory = crd_memory_init(jax.random.key(0), 50, 2)
        >>> new = jnp.array([[3.0, 4.0]])
        >>> memory = crd_memory_update(memory, new, new, jnp.array([7]), momentum=0.0)
        >>> print(memory.student[7])
        [0.6 0.8]
    """
    check_anchors(student_features, teacher_features)
    width = memory.student.shape[1]
    checks.shape("student_features", student_features, (len(student_features), width))
    checks.integer("positives", positives)
    checks.shape("positives", positives, student_features.shape[:1])
    checks.between("momentum", momentum, 0.0, 1.0)
    ids = jnp.asarray(positives).astype(jnp.int32)
    ids = _last_of_equals(ids, memory.student.shape[0])

    def moved(bank: Array, features: Array) -> Array:
        old = bank.at[ids].get(mode="fill", fill_value=0, unique_indices=True)
        old, new = promote_together(old, features)
        keep = jnp.asarray(momentum, new.dtype)
        new = l2_normalize(keep * old + (1 - keep) * l2_normalize(new))
        new = lax.stop_gradient(new.astype(bank.dtype))
        return bank.at[ids].set(new, mode="drop", unique_indices=True)

    return memory._replace(
        student=moved(memory.student, student_features),
        teacher=moved(memory.teacher, teacher_features),
    )
