"""Losses between what two networks answer: their logits."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import tempered_log_softmax, widen_together
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array


def _check_logits(student: Array, teacher: Array, axis: int, where: Array | None):
    checks.matching_pair("logits", student, teacher)
    checks.axis(axis, "student_logits", student)
    checks.mask("where", where, student.shape)


def _tempered_pair(student, teacher, temperature, axis, where):
    """Log-probabilities of both sides, and the squared temperature."""
    _check_logits(student, teacher, axis, where)
    checks.positive("temperature", temperature)
    student, teacher = widen_together(student, teacher)
    log_student = tempered_log_softmax(student, temperature, axis, where)
    log_teacher = tempered_log_softmax(teacher, temperature, axis, where)
    return log_student, log_teacher, jnp.square(jnp.asarray(temperature, student.dtype))


def softmax_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Kullback-Leibler divergence from teacher to student, times temperature squared.

    `T^2 sum_k p_k (log p_k - log q_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. The factor keeps the size of the gradient
    about the same at every temperature; for large `T` the loss tends to half the
    squared distance of the centred logits over the number of classes.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class of teacher probability 0 costs
            nothing, so a class may be ruled out with minus infinity on both sides.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published loss
        is its plain mean.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or the
            temperature is not a finite number above 0.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = softmax_kl(student, teacher, temperature=4.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 1.0358

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531.
    """
    log_student, log_teacher, scale = _tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    share = jnp.exp(log_teacher)
    gap = jnp.where(share == 0, 0, log_teacher - log_student)
    return scale * masked_sum(share * gap, axis, where)


def soft_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Cross-entropy against the teacher's probabilities, times temperature squared.

    `-T^2 sum_k p_k log q_k` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. To the student this has the gradient of
    `softmax_kl`; its value is larger by `T^2` times the entropy of the teacher, and
    so is not zero where the two agree.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class of teacher probability 0 costs
            nothing.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = soft_cross_entropy(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 1.4990

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531.
    """
    log_student, log_teacher, scale = _tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    share = jnp.exp(log_teacher)
    cost = jnp.where(share == 0, 0, log_student)
    return -scale * masked_sum(share * cost, axis, where)


def _labels(student_logits, teacher, axis, where):
    """Class ids with the class axis kept at size one."""
    checks.floating("student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    axis = checks.axis(axis, "student_logits", student_logits)
    checks.mask("where", where, student_logits.shape)
    if checks.is_integer(teacher):
        shape = student_logits.shape
        checks.shape("teacher", teacher, shape[:axis] + shape[axis + 1 :])
        return jnp.expand_dims(jnp.asarray(teacher).astype(jnp.int32), axis)
    checks.floating("teacher", teacher)
    checks.same_shape("teacher", teacher, "student_logits", student_logits)
    if where is not None:
        selected = jnp.broadcast_to(where, teacher.shape)
        teacher = jnp.where(selected, teacher, -jnp.inf)
    return jnp.argmax(teacher, axis, keepdims=True).astype(jnp.int32)


def hard_cross_entropy(
    student_logits: Array,
    teacher: Array,
    *,
    label_smoothing: float | Array = 0.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Cross-entropy against one class per example: a label or the teacher's choice.

    `-sum_k y_k log q_k` with `q = softmax(student_logits)` and
    `y = (1 - s) onehot + s / K`: the smoothing is uniform over all K classes.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher: integer class ids `[...]`, or floating logits `[..., classes]` whose
            largest entry is the label. An id that names no class taking part (-1,
            for example) marks an example without label: it gives 0.
        label_smoothing: `s`, a scalar in [0, 1].
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is wrong, or the
            smoothing lies outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> values = hard_cross_entropy(student, jnp.array([0, 1]))
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 1.6828

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
        2015, arXiv 1512.00567 (the smoothing).
    """
    labels = _labels(student_logits, teacher, axis, where)
    checks.between("label_smoothing", label_smoothing, 0.0, 1.0)
    log_student = tempered_log_softmax(student_logits, 1.0, axis, where)
    smoothing = jnp.asarray(label_smoothing, log_student.dtype)
    classes = lax.broadcasted_iota(jnp.int32, log_student.shape, axis % labels.ndim)
    hit = classes == labels
    if where is not None:
        hit = hit & jnp.broadcast_to(where, hit.shape)
    chosen = masked_sum(log_student, axis, hit)
    uniform = masked_mean(log_student, axis, where)
    value = -((1 - smoothing) * chosen + smoothing * uniform)
    return jnp.where(jnp.any(hit, axis), value, 0)


def logit_mse(
    student_logits: Array,
    teacher_logits: Array,
    *,
    centre: bool = False,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean over the classes of the squared difference of the logits.

    `1/K sum_k (s_k - t_k)^2`, with the mean of each side's logits taken off first if
    `centre`; then a constant added to all logits of an example changes nothing.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        centre: whether to compare the logits with their mean over the classes
            removed.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example in squared logits, at least float32.

    Raises:
        ValueError: if shapes differ or are empty, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = logit_mse(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 3.0833

    Reference:
        Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014, arXiv 1312.6184.
    """
    _check_logits(student_logits, teacher_logits, axis, where)
    student, teacher = widen_together(student_logits, teacher_logits)
    gap = student - teacher
    if where is not None:
        gap = jnp.where(jnp.broadcast_to(where, gap.shape), gap, 0)
    if centre:
        gap = gap - jnp.expand_dims(masked_mean(gap, axis, where), axis)
    return masked_mean(jnp.square(gap), axis, where)
