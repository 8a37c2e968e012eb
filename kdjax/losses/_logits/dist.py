"""Losses about relations inside the matrix of predictions, examples by classes.

All but `dist_inter` compare examples, so they mean the global batch. Under `jax.jit`
over a mesh that is what they compute. Under `jax.pmap` or `jax.shard_map`, pass logits
(and `where`) gathered with `kdjax.core.collectives`. Of dense predictions, flatten the
positions into the examples.
"""

import math

import jax.numpy as jnp

from kdjax.core import checks, examples
from kdjax.core.logits import possible, tempered_pair
from kdjax.core.numerics import l2_normalize, safe_norm
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch
from kdjax.losses._logits._batch import batch_logits


def _directions(x: Array, axis: int, where: Array | None) -> tuple[Array, Array]:
    """Deviations from the mean along `axis` as unit vectors, and their lengths."""
    gap = x - jnp.expand_dims(masked_mean(x, axis, where), axis)
    if where is not None:
        gap = jnp.where(jnp.broadcast_to(where, gap.shape), gap, 0)
    return l2_normalize(gap, axis, eps=0.0), safe_norm(gap, axis)


def _correlation_gap(
    student: Array,
    teacher: Array,
    eps: float | Array,
    axis: int,
    where: Array | None = None,
) -> tuple[Array, Array]:
    """One minus the correlation along `axis`, as entries to be summed and a rest.

    With unit vectors `u`, `v` of lengths `a`, `b` and `w = a b / (a b + eps)`,
    `1 - w <u, v> = sum w (u - v)^2 / 2 + (1 - w)`: no term is negative.
    """
    student, student_length = _directions(student, axis, where)
    teacher, teacher_length = _directions(teacher, axis, where)
    product = student_length * teacher_length
    remainder = eps / (product + eps)
    weight = jnp.expand_dims(1 - remainder, axis)
    return weight * jnp.square(student - teacher) / 2, remainder


def _inter(
    student: Array, teacher: Array, eps: Array, where: Array | None = None
) -> Array:
    entries, remainder = _correlation_gap(student, teacher, eps, -1, where)
    return jnp.sum(entries, -1) + remainder


def _intra(student: Array, teacher: Array, eps: Array, where: Array) -> Array:
    """Shares of the examples; `where`: `[N, K]`, a class of no example is no column."""
    rows = masked_count(student[:, 0], 0, jnp.any(where, 1))
    entries, remainder = _correlation_gap(student, teacher, eps, 0, where)
    columns = jnp.any(where, 0, keepdims=True)
    value = masked_mean(rows * entries + remainder[None, :], -1, columns)
    return jnp.where(jnp.any(where, 1), value, 0)


def _eps(value: float | Array, like: Array) -> Array:
    checks.positive("eps", value)
    return jnp.asarray(value, like.dtype)


def dist_inter(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    eps: float | Array = 1e-8,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """DIST, inter-class: one minus each example's correlation over the classes.

    `T^2 (1 - r)` with `r = <a, b> / (|a| |b| + eps)`, where `a` and `b` are the
    student's and the teacher's `softmax(logits / T)` less their means over the
    classes. A positive scale and a shift of the student's or the teacher's
    probabilities change nothing (but for `eps`). Probabilities all equal have `r = 0`
    with gradient 0; so has one class alone.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        eps: added to the product of the lengths, above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in `[0, 2 T^2]` per example, at least float32; the
        published weight is 2 (see `dist`).

    Raises:
        ValueError: as in `softmax_kl`, or if `eps` is not above 0.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{dist_inter(student, teacher).mean():.4f}")
        1.2196

    Reference:
        Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher",
        2022, arXiv 2205.10536.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    eps = _eps(eps, scale)
    student, teacher = (
        jnp.moveaxis(jnp.exp(x), axis, -1) for x in (log_student, log_teacher)
    )
    where = possible(student_logits, teacher_logits, where)
    where = jnp.moveaxis(jnp.broadcast_to(where, log_student.shape), axis, -1)
    value = scale * _inter(student, teacher, eps, where)
    return jnp.where(jnp.any(where, -1), value, 0)


def _probabilities(student, teacher, temperature, axis, where):
    """Predictions `[N, K]`, mask of the entries, and the squared temperature."""
    student, teacher, valid = batch_logits(student, teacher, axis, where)
    log_student, log_teacher, scale = tempered_pair(
        student, teacher, temperature, -1, None
    )
    why = "a correlation over the batch"
    examples.require_examples("student_logits", student.shape[0], 2, why)
    entries = possible(student, teacher, valid[:, None])
    return jnp.exp(log_student), jnp.exp(log_teacher), entries, scale


@over_global_batch()
def dist_intra(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    eps: float | Array = 1e-8,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """DIST, intra-class: one minus each class's correlation over the batch.

    The published loss is `T^2 (1 - 1/K sum_k r_k)` with `r_k` the correlation, as in
    `dist_inter`, of the class's column of probabilities. The example i holds its share
    of it: with each column less its mean and of length 1,
    `T^2 / K sum_k N (q_ik - p_ik)^2 / 2`, plus what `eps` makes of a column of length
    near 0. A column that does not vary has `r_k = 0`. A class that student and teacher
    rule out with minus infinity in every example is no column.

    Args:
        student_logits: `[N, classes]` of the global batch, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        eps: added to the product of the lengths, above 0.
        axis: the axis of the classes.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0. One alone varies in no class and gives `T^2`.

    Returns:
        `[N]`, one value per example, at least float32. The published loss is their
        plain mean (over the examples that take part), in `[0, 2 T^2]`; the published
        weight is 2 (see `dist`).

    Raises:
        ValueError: as in `softmax_kl`, or if there are fewer than 2 examples, the
            logits are not of rank 2, or `eps` is not above 0.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0], [2.0, 0.0, 1.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [3.0, 0.0, 1.0]])
        >>> values = dist_intra(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (3,) 0.9489

    Reference:
        Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher",
        2022, arXiv 2205.10536.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, entries, scale = _probabilities(
        student_logits, teacher_logits, temperature, axis, where
    )
    return scale * _intra(student, teacher, _eps(eps, scale), entries)


@over_global_batch()
def dist(
    student_logits: Array,
    teacher_logits: Array,
    *,
    beta: float | Array = 1.0,
    gamma: float | Array = 1.0,
    temperature: float | Array = 1.0,
    eps: float | Array = 1e-8,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """DIST: inter-class plus intra-class Pearson correlation loss.

    `beta dist_inter + gamma dist_intra`, `T^2` inside both. What must agree is the
    preference between classes and between examples, not the probabilities, which a
    much stronger teacher holds elsewhere.

    Args:
        student_logits: `[N, classes]` of the global batch, before any softmax.
        teacher_logits: the same shape.
        beta: weight of the correlation across the classes.
        gamma: weight of the correlation across the batch.
        temperature: a scalar above 0.
        eps: added to the product of the lengths in each correlation, above 0.
        axis: the axis of the classes.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The published weight is 2
        with a cross-entropy of weight 1, at `T = 1` on ImageNet and `T = 4` on
        CIFAR-100.

    Raises:
        ValueError: as in `dist_intra`, or if a weight is not a single finite number.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0], [2.0, 0.0, 1.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [3.0, 0.0, 1.0]])
        >>> values = dist(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (3,) 1.7675

    Reference:
        Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher",
        2022, arXiv 2205.10536.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    for name, weight in (("beta", beta), ("gamma", gamma)):
        checks.between(name, weight, -math.inf)
    student, teacher, entries, scale = _probabilities(
        student_logits, teacher_logits, temperature, axis, where
    )
    eps = _eps(eps, scale)
    inter = _inter(student, teacher, eps, entries)
    inter = jnp.where(jnp.any(entries, -1), inter, 0)
    intra = _intra(student, teacher, eps, entries)
    beta, gamma = (jnp.asarray(x, scale.dtype) for x in (beta, gamma))
    return scale * (beta * inter + gamma * intra)
