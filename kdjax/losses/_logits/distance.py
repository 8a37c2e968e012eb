"""Distances between logits or between probabilities."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import check_pair, possible, tempered_pair
from kdjax.core.numerics import (
    promote_together,
    safe_abs,
    safe_norm,
    tempered_log_softmax,
)
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array


def _selected(
    student: Array, teacher: Array, where: Array | None
) -> tuple[Array, Array, Array]:
    """Logits in one dtype with 0 at classes that take no part, and the mask."""
    student, teacher = promote_together(student, teacher)
    where = jnp.broadcast_to(possible(student, teacher, where), student.shape)
    return jnp.where(where, student, 0), jnp.where(where, teacher, 0), where


def logit_mse(
    student_logits: Array,
    teacher_logits: Array,
    *,
    center: bool = False,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean squared error (MSE) of the logits.

    `1/K sum_k (s_k - t_k)^2`, with the mean of each network's logits taken off first if
    `center`; then a constant added to all logits of an example changes nothing.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        center: whether to compare the logits with their mean over the classes
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
    checks.boolean("center", center)
    check_pair(student_logits, teacher_logits, axis, where)
    student, teacher, where = _selected(student_logits, teacher_logits, where)
    gap = student - teacher
    if center:
        gap = gap - jnp.expand_dims(masked_mean(gap, axis, where), axis)
    return masked_mean(jnp.square(gap), axis, where)


def logit_l2(
    student_logits: Array,
    teacher_logits: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """L2: Euclidean distance of the logits.

    `sqrt(sum_k (s_k - t_k)^2)`, with gradient 0 where the two are equal: the root is
    not taken of zero. big_vision adds 1e-12 under the root instead, which raises the
    value by at most 1e-6. The gradient has length 1 however near the student is, so
    the step size must decay. A constant added to one network's logits counts.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example in logits, at least float32; big_vision gives
        it weight 1.

    Raises:
        ValueError: if shapes differ or are empty, or a dtype is not floating.

    Example:
        >>> student = jnp.array([1.0, 2.0, 3.0, 0.0])
        >>> teacher = jnp.array([4.0, 2.0, 1.0, 0.0])
        >>> print(f"{logit_l2(student, teacher):.4f}")
        3.6056

    Reference:
        Beyer et al., "Knowledge distillation: A good teacher is patient and
        consistent", 2021, arXiv 2106.05237 (the `euclidean` of its code).
    """
    check_pair(student_logits, teacher_logits, axis, where)
    student, teacher, where = _selected(student_logits, teacher_logits, where)
    gap = student - teacher
    return safe_norm(gap, axis)


def logit_l1(
    student_logits: Array,
    teacher_logits: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """L1: sum of the absolute differences of the logits.

    `sum_k |s_k - t_k|`, with gradient 0 at a class that agrees exactly.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example in logits, at least float32; with
        cross-entropy and `adversarial_student`.

    Raises:
        ValueError: if shapes differ or are empty, or a dtype is not floating.

    Example:
        >>> print(logit_l1(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
        [3.]

    Reference:
        Xu, Hsu, Huang, "Training Shallow and Thin Networks for Acceleration via
        Knowledge Distillation with Conditional Adversarial Networks", 2017,
        arXiv 1709.00513.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    student, teacher, where = _selected(student_logits, teacher_logits, where)
    return masked_sum(safe_abs(student - teacher), axis, where)


def log_softmax_l2(
    student_logits: Array,
    teacher_logits: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """L2 of log-probabilities: their Euclidean distance.

    `sqrt(sum_k (log q_k - log p_k)^2)` with `p = softmax(teacher_logits)` and
    `q = softmax(student_logits)`. As `logit_l2`, but a constant added to all logits
    of an example changes nothing. Unlikely classes count as much as likely ones.

    Args:
        student_logits: `[..., classes]`, before any softmax; finite.
        teacher_logits: the same shape; finite.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example in nats, at least float32; big_vision gives it
        weight 1.

    Raises:
        ValueError: as in `logit_l2`.

    Example:
        >>> student = jnp.array([1.0, 2.0, 3.0, 0.0])
        >>> teacher = jnp.array([4.0, 2.0, 1.0, 0.0])
        >>> print(f"{log_softmax_l2(student, teacher):.4f}")
        3.7054

    Reference:
        Beyer et al., "Knowledge distillation: A good teacher is patient and
        consistent", 2021, arXiv 2106.05237 (the `logsoftmax_euclidean` of its code).
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.classes("student_logits", student_logits, axis)
    student, teacher, where = _selected(student_logits, teacher_logits, where)
    student = tempered_log_softmax(student, 1.0, axis, where)
    teacher = tempered_log_softmax(teacher, 1.0, axis, where)
    return safe_norm(student - teacher, axis)


def probability_mse(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean squared error (MSE) of the probabilities, times T squared.

    `T^2 / K sum_k (q_k - p_k)^2` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. It is at most `2 T^2 / K`; a student that is
    sure and wrong gets almost no gradient.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example, at least float32. MEAL weighs it by 1 at the
        logits (`T = 1`) and by 0.001 to 0.1 at earlier taps.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student = jnp.array([[0.0, 0.0]])
        >>> teacher = jnp.log(jnp.array([[0.75, 0.25]]))
        >>> print(probability_mse(student, teacher))
        [0.0625]

    Reference:
        Shen, He, Xue, "MEAL: Multi-Model Ensemble via Adversarial Learning", 2018,
        arXiv 1812.02425.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    where = possible(student_logits, teacher_logits, where)
    gap = jnp.exp(log_student) - jnp.exp(log_teacher)
    return scale * masked_mean(jnp.square(gap), axis, where)


def probability_l1(
    student_logits: Array,
    teacher_logits: Array,
    *,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Mean absolute error (L1) of the probabilities.

    `1/K sum_k |q_k - p_k|` with `p = softmax(teacher_logits)` and
    `q = softmax(student_logits)`: the total variation distance times `2 / K`. Where
    a class agrees exactly its gradient is 0.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value per example, at least float32. MEAL weighs it by 1 at the
        logits and by 0.001 to 0.1 at earlier taps.

    Raises:
        ValueError: if shapes differ or are empty, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[0.0, 0.0]])
        >>> teacher = jnp.log(jnp.array([[0.75, 0.25]]))
        >>> print(probability_l1(student, teacher))
        [0.25]

    Reference:
        Shen, He, Xue, "MEAL: Multi-Model Ensemble via Adversarial Learning", 2018,
        arXiv 1812.02425.
    """
    log_student, log_teacher, _ = tempered_pair(
        student_logits, teacher_logits, 1.0, axis, where
    )
    where = possible(student_logits, teacher_logits, where)
    gap = jnp.exp(log_student) - jnp.exp(log_teacher)
    return masked_mean(jnp.abs(gap), axis, where)
