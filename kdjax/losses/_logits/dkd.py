"""Decoupled knowledge distillation (DKD) and its two parts."""

import math

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks, collectives
from kdjax.core.logits import (
    check_ids,
    check_pair,
    divergence,
    mark_labels,
    tempered_pair,
)
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array


def _log_sum_exp(
    values: Array, axis: int, where: Array, axis_name: str | None
) -> Array:
    """`log sum exp` of the selected entries; 0 where there are none."""
    top = jnp.max(jnp.where(where, values, -jnp.inf), axis, keepdims=True)
    top = collectives.largest(lax.stop_gradient(top), axis_name)
    top = jnp.where(jnp.isneginf(top), 0, top)
    shares = jnp.exp(jnp.where(where, values - top, 0))
    total = masked_sum(shares, axis, where, axis_name)
    total = jnp.where(collectives.any_true(where, axis, axis_name), total, 1)
    return jnp.squeeze(top, axis) + jnp.log(total)


def _split(
    logits: Array,
    axis: int,
    where: Array | None,
    labels: Array,
    axis_name: str | None,
):
    """Masks of the label and of the other classes that take part."""
    check_ids("labels", labels, logits, axis, axis_name)
    hit = mark_labels(labels, logits, axis, where, axis_name)
    others = ~hit if where is None else ~hit & jnp.broadcast_to(where, hit.shape)
    return hit, others


def dkd_target(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 4.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Target-class KD (TCKD of DKD): KL divergence of label against the rest.

    `T^2 [b log(b / c) + (1 - b) log((1 - b) / (1 - c))]` with `b` and `c` the
    teacher's and the student's probability of the label at temperature `T`. The
    rest is summed in log space, so that a student sure of the label costs no more
    than its logits are large. With `dkd_non_target`, the plain loss is
    `softmax_kl = dkd_target + (1 - b) dkd_non_target`.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`. A negative id, or one of a class that
            takes no part, marks an example without label: it gives 0.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`. Labels are ids of all classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; published weight 1.

    Raises:
        ValueError: as in `softmax_kl`, or if the labels are not integers of the shape
            of the examples.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = dkd_target(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{values.mean():.4f}")
        0.8188

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    *sides, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    hit, others = _split(student_logits, axis, where, labels, class_axis_name)
    # The label and the rest as two classes; the rest is missing if nothing else is.
    log_student, log_teacher = (
        jnp.stack(
            [
                masked_sum(x, axis, hit, class_axis_name),
                _log_sum_exp(x, axis, others, class_axis_name),
            ],
            -1,
        )
        for x in sides
    )
    both = (collectives.any_true(x, axis, class_axis_name) for x in (hit, others))
    present = jnp.stack(list(both), -1)
    value = scale * divergence(log_teacher, log_student, -1, present)
    return jnp.where(present[..., 0], value, 0)


def dkd_non_target(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 4.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Non-target-class KD (NCKD of DKD): KL divergence without the label.

    `T^2 KL(p' | q')` with `p'` and `q'` the softmax at temperature `T` over all
    logits but the label's. The plain loss weighs this by the teacher's doubt about
    the label; here the weight is one's own. With two classes it is 0.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`. A negative id, or one of a class that
            takes no part, marks an example without label: it gives 0.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`. Labels are ids of all classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; published weight 8
        (see `dkd`).

    Raises:
        ValueError: as in `dkd_target`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = dkd_non_target(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{8 * values.mean():.4f}")
        3.1081

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    hit, others = _split(student_logits, axis, where, labels, class_axis_name)
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, others, class_axis_name
    )
    value = divergence(log_teacher, log_student, axis, others, class_axis_name)
    labeled = collectives.any_true(hit, axis, class_axis_name)
    return jnp.where(labeled, scale * value, 0)


def dkd(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    alpha: float | Array = 1.0,
    beta: float | Array = 8.0,
    temperature: float | Array = 4.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Decoupled KD (DKD): weighted target-class and non-target-class divergences.

    `alpha dkd_target + beta dkd_non_target`, `T^2` inside both.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`. A negative id, or one of a class that takes
            no part, marks an example without label: it gives 0. Of labels that mixup
            blends, `c` of one and `1 - c` of another, the loss is `c dkd(labels=a) +
            (1 - c) dkd(labels=b)`: like cross-entropy, it is linear in the label. A
            term of a run does so.
        alpha: weight of the part about the label.
        beta: weight of the part about the other classes. The defaults are those of
            ResNet32x4 pairs on CIFAR-100; published are 2, 6 and 8 there by pair, and
            0.5 (ResNet34 to 18) and 2 (ResNet50 to MobileNet) at `T = 1` on ImageNet.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`. Labels are ids of all classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        is 1 with a cross-entropy of weight 1, raised linearly from 0 over the first
        20 epochs.

    Raises:
        ValueError: as in `dkd_target`, or if a weight is not a single number.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = dkd(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{values.mean():.4f}")
        3.9269

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    for name, weight in (("alpha", alpha), ("beta", beta)):
        checks.between(name, weight, -math.inf)
    options = {
        "labels": labels,
        "temperature": temperature,
        "axis": axis,
        "class_axis_name": class_axis_name,
        "where": where,
    }
    target = dkd_target(student_logits, teacher_logits, **options)
    rest = dkd_non_target(student_logits, teacher_logits, **options)
    return (
        jnp.asarray(alpha, rest.dtype) * target + jnp.asarray(beta, rest.dtype) * rest
    )
