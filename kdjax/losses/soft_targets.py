"""Soft targets with a temperature of their own, per label, or weighed by class."""

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import tempered_log_softmax, widen_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array
from kdjax.losses._logits import check_pair, divergence, tempered_pair


def policy_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 0.01,
    student_temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Kullback-Leibler divergence with a temperature for each side, and no factor.

    `sum_k p_k (log p_k - log q_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T_s)`. Policy distillation sharpens the action
    values of the teacher so (`T = 0.01`, `T_s = 1`); the student's logits then are
    those of a policy, of another scale. There is no `T^2`: the gradient of the
    student depends on its own temperature alone.

    The same form serves soft labels that are given as probabilities `y`: pass
    `log y` with `T = 1`, as zero-shot distillation does (`T_s = 20`, see
    `sample_soft_labels`).

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape: action values, say.
        temperature: `T`, the teacher's, a scalar above 0.
        student_temperature: `T_s`, a scalar above 0.
        axis: the axis of the classes (actions).
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. Used alone, with
        weight 1. It is 0 where `p = q`, not where the logits are equal.

    Raises:
        ValueError: as in `softmax_kl`, for either temperature.

    Example:
        >>> values = jnp.array([[1.00, 1.01, 0.90]])
        >>> student = jnp.log(jnp.array([[0.26894138, 0.73104965, 0.00001221]]))
        >>> print(f"{abs(policy_kl(student, values)).mean():.4f}")
        0.0000

    Reference:
        Rusu et al., "Policy Distillation", 2015, arXiv 1511.06295.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.positive("temperature", temperature)
    checks.positive("student_temperature", student_temperature)
    student, teacher = widen_together(student_logits, teacher_logits)
    log_student = tempered_log_softmax(student, student_temperature, axis, where)
    log_teacher = tempered_log_softmax(teacher, temperature, axis, where)
    return divergence(log_teacher, log_student, axis, where)


def sigmoid_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Binary cross-entropy against the teacher's probabilities, times T squared.

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
    checks.positive("temperature", temperature)
    student, teacher = widen_together(student_logits, teacher_logits)
    if where is not None:
        selected = jnp.broadcast_to(where, student.shape)
        student, teacher = (jnp.where(selected, x, 0) for x in (student, teacher))
    scale = jnp.asarray(temperature, student.dtype)
    student, share = student / scale, jax.nn.sigmoid(teacher / scale)
    # log(1 - q) = log_sigmoid(-s) = log_sigmoid(s) - s.
    cost = (1 - share) * student - jax.nn.log_sigmoid(student)
    return jnp.square(scale) * masked_sum(cost, axis, where)


def class_weighted_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    class_weights: Array,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Soft cross-entropy in which each class has a weight, times T squared.

    `-T^2 sum_k w_k p_k log q_k` with the probabilities of `soft_cross_entropy`. In
    detection nearly every region is background, and a mistake between background
    and object counts more than one between objects.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        class_weights: `w`, floating `[classes]`, not negative. Chen et al. give the
            background 1.5 and every other class 1 (from memory of the paper).
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; `mu` of hard beside
        `1 - mu` of this. It is not 0 where the two agree.

    Raises:
        ValueError: as in `softmax_kl`, or if there is not one weight per class, or a
            negative one.

    Example:
        >>> student, teacher = jnp.zeros((1, 2)), jnp.array([[50.0, 0.0]])
        >>> weights = jnp.array([1.5, 1.0])
        >>> values = class_weighted_cross_entropy(
        ...     student, teacher, class_weights=weights
        ... )
        >>> print(f"{values.mean():.4f}")
        1.0397

    Reference:
        Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models
        with Knowledge Distillation", NeurIPS 2017 (no arXiv version).
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    checks.floating("class_weights", class_weights)
    axis = checks.axis(axis, "student_logits", student_logits)
    checks.shape("class_weights", class_weights, (student_logits.shape[axis],))
    # Of a class that takes no part it may be anything, NaN too.
    checks.holds(
        "class_weights", lambda np, w: ~(w < 0), "numbers of at least 0", class_weights
    )
    around = [i for i in range(log_student.ndim) if i != axis]
    weights = jnp.expand_dims(jnp.asarray(class_weights), around)
    share = jnp.exp(log_teacher)
    cost = share * jnp.where(share == 0, 0, log_student)
    weights = jnp.broadcast_to(weights.astype(cost.dtype), cost.shape)
    return -scale * masked_sum(weights * cost, axis, where)
