"""Losses of independent labels: one sigmoid a class."""

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import check_pair, possible
from kdjax.core.numerics import divide_finite, promote_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array


def sigmoid_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Binary KL: sum over the labels of Bernoulli KL divergences, times T squared.

    `T^2 sum_k [p_k log(p_k / q_k) + (1 - p_k) log((1 - p_k) / (1 - q_k))]` with
    `p = sigmoid(teacher_logits / T)` and `q = sigmoid(student_logits / T)`: the
    divergence of the joint distribution of all labels, hence a sum over the classes.
    Code that averages over classes too has this divided by their number. For the
    student the gradient is that of binary cross-entropy against `p`.

    Args:
        student_logits: `[..., classes]`, before any sigmoid.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part (an
            unknown label, say, leaves its class out).

    Returns:
        `[...]`, one value in nats per example, at least float32; usually with weight
        1 with binary cross-entropy.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student = jnp.array([[0.0, 1.0]])
        >>> teacher = jnp.array([[0.0, -1.0]])
        >>> print(f"{sigmoid_kl(student, teacher).mean():.4f}")
        0.4621

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531 (for one softmax; here for each label).
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.temperature("temperature", temperature)
    student, teacher = promote_together(student_logits, teacher_logits)
    where = jnp.broadcast_to(possible(student, teacher, where), student.shape)
    student, teacher = (jnp.where(where, x, 0) for x in (student, teacher))
    temperature = jnp.asarray(temperature, student.dtype)
    student, teacher = (divide_finite(x, temperature) for x in (student, teacher))
    value = _binary_term(teacher, student) + _binary_term(-teacher, -student)
    return jnp.square(temperature) * masked_sum(value, axis, where)


def _binary_term(teacher: Array, student: Array) -> Array:
    """`p (log p - log q)` with the sigmoids of student and teacher; 0 for p = 0."""
    log_p = jax.nn.log_sigmoid(teacher)
    share = jnp.exp(log_p)
    gap = jnp.where(share == 0, 0, log_p - jax.nn.log_sigmoid(student))
    return share * gap


def sigmoid_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Binary cross-entropy (BCE) with soft labels, times T squared.

    `-T^2 sum_k [p_k log q_k + (1 - p_k) log(1 - q_k)]` with `p` and `q` the sigmoids
    of `teacher_logits / T` and `student_logits / T`. To the student it has the
    gradient of `sigmoid_kl`; its value is larger by the entropy of the teacher.

    Of confidence maps `[batch, height, width, keypoints]` it gives a value for each
    position; sum these. With `T = 1/2` it compares hints behind a tanh, mapped to
    `[0, 1]`, for which the first code of FitNets takes cross-entropy instead of
    squares (`T^2` then being a weight of 1/4).

    Args:
        student_logits: `[..., classes]`, before any sigmoid.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes, keypoints or channels.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student, teacher = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, -1.0]])
        >>> print(f"{sigmoid_cross_entropy(student, teacher).mean():.4f}")
        1.7375

    Reference:
        Zhao et al., "Through-Wall Human Pose Estimation Using Radio Signals", CVPR
        2018 (no arXiv version); Romero et al. (FitNets), 2015, arXiv 1412.6550.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.temperature("temperature", temperature)
    student, teacher = promote_together(student_logits, teacher_logits)
    where = jnp.broadcast_to(possible(student, teacher, where), student.shape)
    student, teacher = (jnp.where(where, x, 0) for x in (student, teacher))
    scale = jnp.asarray(temperature, student.dtype)
    student, teacher = (divide_finite(x, scale) for x in (student, teacher))
    share = jax.nn.sigmoid(teacher)
    log_student = jnp.where(share == 0, 0, jax.nn.log_sigmoid(student))
    cost = -share * log_student - (1 - share) * jax.nn.log_sigmoid(-student)
    return jnp.square(scale) * masked_sum(cost, axis, where)
