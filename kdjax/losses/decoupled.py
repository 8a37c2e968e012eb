"""Losses on logits that split, weigh or rescale what the teacher says."""

import math

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.reduce import masked_count, masked_sum
from kdjax.core.types import Array
from kdjax.losses._logits import (
    check_ids,
    check_pair,
    cross_entropy,
    divergence,
    hits,
    tempered_pair,
)


def _log_sum_exp(values: Array, axis: int, where: Array) -> Array:
    """`log sum exp` of the selected entries; 0 where there are none."""
    top = jnp.max(jnp.where(where, values, -jnp.inf), axis, keepdims=True)
    top = lax.stop_gradient(jnp.where(jnp.isneginf(top), 0, top))
    total = masked_sum(jnp.exp(jnp.where(where, values - top, 0)), axis, where)
    total = jnp.where(jnp.any(where, axis), total, 1)
    return jnp.squeeze(top, axis) + jnp.log(total)


def _split(logits: Array, axis: int, where: Array | None, labels: Array):
    """Which class is the label, and which are the others that take part."""
    check_ids("labels", labels, logits, axis)
    hit = hits(labels, logits, axis, where)
    others = ~hit if where is None else ~hit & jnp.broadcast_to(where, hit.shape)
    return hit, others


def decoupled_target(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 4.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence about the label against all the rest, times temperature squared.

    `T^2 [b log(b / c) + (1 - b) log((1 - b) / (1 - c))]` with `b` and `c` the
    teacher's and the student's probability of the label at temperature `T`. The
    rest is summed in log space, so that a student sure of the label costs no more
    than its logits are large. With `decoupled_non_target`, the plain loss is
    `softmax_kl = decoupled_target + (1 - b) decoupled_non_target`.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`. A negative id, or one of a class that
            takes no part, marks an example without label: it gives 0.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; published weight 1.

    Raises:
        ValueError: as in `softmax_kl`, or if the labels are not integers of the shape
            of the examples.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = decoupled_target(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{values.mean():.4f}")
        0.8188

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    *sides, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    hit, others = _split(student_logits, axis, where, labels)
    # The label and the rest as two classes; the rest is missing if nothing else is.
    log_student, log_teacher = (
        jnp.stack([masked_sum(x, axis, hit), _log_sum_exp(x, axis, others)], -1)
        for x in sides
    )
    present = jnp.stack([jnp.any(hit, axis), jnp.any(others, axis)], -1)
    value = scale * divergence(log_teacher, log_student, -1, present)
    return jnp.where(present[..., 0], value, 0)


def decoupled_non_target(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 4.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence among the classes other than the label, times temperature squared.

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
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; published weight 8
        (see `decoupled_kd`).

    Raises:
        ValueError: as in `decoupled_target`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = decoupled_non_target(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{8 * values.mean():.4f}")
        3.1081

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    hit, others = _split(student_logits, axis, where, labels)
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, others
    )
    value = scale * divergence(log_teacher, log_student, axis, others)
    return jnp.where(jnp.any(hit, axis), value, 0)


def decoupled_kd(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    alpha: float | Array = 1.0,
    beta: float | Array = 8.0,
    temperature: float | Array = 4.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """The two parts of the softened divergence, each with a weight of its own.

    `alpha decoupled_target + beta decoupled_non_target`, `T^2` inside both.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`; under mixup, those of the larger share. A
            negative id, or one of a class that takes no part, marks an example
            without label: it gives 0.
        alpha: weight of the part about the label.
        beta: weight of the part about the other classes. The defaults are those of
            ResNet32x4 pairs on CIFAR-100; published are 2, 6 and 8 there by pair, and
            0.5 (ResNet34 to 18) and 2 (ResNet50 to MobileNet) at `T = 1` on ImageNet.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        is 1 beside a cross-entropy of weight 1, raised linearly from 0 over the first
        20 epochs.

    Raises:
        ValueError: as in `decoupled_target`, or if a weight is not a single number.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = decoupled_kd(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{values.mean():.4f}")
        3.9269

    Reference:
        Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", 2022,
        arXiv 2203.08679.
    """
    for name, weight in (("alpha", alpha), ("beta", beta)):
        checks.between(name, weight, -math.inf)
    knobs = {"labels": labels, "temperature": temperature, "axis": axis, "where": where}
    target = decoupled_target(student_logits, teacher_logits, **knobs)
    rest = decoupled_non_target(student_logits, teacher_logits, **knobs)
    return (
        jnp.asarray(alpha, rest.dtype) * target + jnp.asarray(beta, rest.dtype) * rest
    )


def lwf_kd(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 2.0,
    eps: float | Array = 0.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Cross-entropy against what the model said before it learned a new task.

    `-sum_k p_k log q_k` with both sides' probabilities raised to `1 / T` and
    normalised again, which is `softmax(logits / T)`. Unlike elsewhere there is **no**
    `T^2`: the published weight was tuned without it. So at `T = 2` this is a quarter
    of `soft_cross_entropy`.

    Args:
        student_logits: `[..., classes]`, of the old head or heads of the model in
            training, on images of the new task.
        teacher_logits: the same shape, of the model before the new task.
        temperature: a scalar above 0.
        eps: smoothing of the student, in [0, 1]: `q` becomes
            `(q + eps / K) / (1 + eps)`, which bounds the loss. The paper has none;
            FACIL, a common test bed, has 1e-5.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part (those
            of the old tasks, say).

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        is 1, for each old head or once for all in one softmax.

    Raises:
        ValueError: as in `softmax_kl`, or if `eps` lies outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{lwf_kd(student, teacher).mean():.4f}")
        1.2101

    Reference:
        Li, Hoiem, "Learning without Forgetting", 2016, arXiv 1606.09282.
    """
    log_student, log_teacher, _ = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    checks.between("eps", eps, 0.0, 1.0)
    eps = jnp.asarray(eps, log_student.dtype)
    count = jnp.expand_dims(masked_count(log_student, axis, where), axis)
    floor = jnp.broadcast_to(jnp.log(eps / count), log_student.shape)
    log_student = jnp.logaddexp(log_student, floor) - jnp.log1p(eps)
    return cross_entropy(log_teacher, log_student, axis, where)
