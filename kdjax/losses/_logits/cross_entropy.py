"""Cross-entropy with labels or with a teacher's probabilities."""

from typing import Any

import jax.numpy as jnp

from kdjax.core import checks, collectives
from kdjax.core.logits import (
    check_ids,
    cross_entropy,
    mark_labels,
    tempered_pair,
    x_log_x,
)
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array

SMOOTHING_VARIANTS = ("big_vision", "szegedy")


def soft_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """KD as a cross-entropy with the teacher's probabilities, times T squared.

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
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
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
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    return scale * cross_entropy(log_teacher, log_student, axis, where, class_axis_name)


def _labels(
    student_logits: Array,
    teacher: Array,
    axis: int,
    where: Array | None,
    class_axis_name: str | None,
) -> Array:
    """The class id of every example."""
    checks.floating("student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    checks.axis(axis, "student_logits", student_logits)
    checks.classes("student_logits", student_logits, axis, class_axis_name)
    checks.mask("where", where, student_logits.shape)
    if checks.is_integer(teacher):
        check_ids("teacher", teacher, student_logits, axis, class_axis_name)
        return teacher
    if not checks.is_floating(teacher) or class_axis_name is not None:
        no_logits = "class ids (integer), as the classes are divided over devices"
        either = "class ids (integer) or logits (floating)"
        expected = either if class_axis_name is None else no_logits
        checks.refuse_dtype("teacher", expected, teacher)
    checks.same_shape("teacher", teacher, "student_logits", student_logits)
    checks.holds(
        "teacher",
        lambda np, x: ~_are_probabilities(np, x, axis),
        "class ids or logits (`soft_label_cross_entropy` takes probabilities)",
        teacher,
    )
    if where is not None:
        selected = jnp.broadcast_to(where, teacher.shape)
        teacher = jnp.where(selected, teacher, -jnp.inf)
    return jnp.argmax(teacher, axis)


def _are_probabilities(np: Any, x: Any, axis: int) -> Any:
    """True for rows of soft labels: at least two entries above 0, and sum 1."""
    mixed = (x > 0).sum(axis, keepdims=True) > 1
    total = x.sum(axis, keepdims=True)
    rows = mixed & (x >= 0).all(axis, keepdims=True) & (abs(total - 1) < 1e-3)
    return np.broadcast_to(rows, x.shape)


def soft_label_cross_entropy(
    student_logits: Array,
    teacher: Array,
    *,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Cross-entropy (CE) with soft labels, such as those of mixup.

    `-sum_k y_k log q_k` with `q = softmax(student_logits)`. The labels of two images
    blended by mixup are `c onehot_a + (1 - c) onehot_b`.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher: `y`, probabilities of the same shape: not negative. They may sum to
            less than 1, which lowers the weight of the example; of 0 the value is 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
        where: bool, of the rank of the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, a label is
            negative or above 1, or the labels of an example sum to more than 1.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> labels = jnp.array([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
        >>> values = soft_label_cross_entropy(student, labels)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 1.3078

    Reference:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
        2017, arXiv 1710.09412.
    """
    checks.floating("student_logits", student_logits)
    checks.floating("teacher", teacher)
    checks.same_shape("teacher", teacher, "student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    checks.axis(axis, "student_logits", student_logits)
    checks.classes("student_logits", student_logits, axis, class_axis_name)
    checks.mask("where", where, student_logits.shape)
    # Of a class that takes no part it may be anything, NaN too.
    checks.holds(
        "teacher",
        lambda np, y: ~((y < 0) | (y > 1)),
        "probabilities in [0, 1]",
        teacher,
    )
    student, labels = promote_together(student_logits, teacher)
    # The rounding of half precision is larger.
    most = 1 + max(1e-3, float(jnp.finfo(teacher.dtype).eps))
    checks.holds(
        "teacher",
        lambda np, total: ~(total > most),
        "probabilities with a sum over the classes of at most 1",
        masked_sum(labels, axis, where),
    )
    log_student = tempered_log_softmax(student, 1.0, axis, where, class_axis_name)
    cost = jnp.where(labels == 0, 0, log_student) * labels
    return -masked_sum(cost, axis, where, class_axis_name)


def hard_cross_entropy(
    student_logits: Array,
    teacher: Array,
    *,
    label_smoothing: float | Array = 0.0,
    variant: str = "szegedy",
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Cross-entropy (CE) with labels or the teacher's top class, with smoothing.

    `"szegedy"`: `-sum_k y_k log q_k` with `q = softmax(student_logits)` and
    `y = (1 - s) onehot + s / K`: the smoothing is uniform over all K classes.
    `"big_vision"`: `sum_k y_k (log y_k - log q_k)` with `1 - s` at the label and
    `s / (K - 1)` elsewhere: the smoothing is uniform over the other classes, and the
    entropy of the target is taken off, so that a student at `y` has loss 0.
    Without smoothing the two agree. Most recipes mean the first: the default.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher: integer class ids `[...]`, or floating logits `[..., classes]` whose
            largest entry is the label. A negative id, or one of a class that takes no
            part, marks an example without label: it gives 0.
        label_smoothing: `s`, a scalar in [0, 1].
        variant: `"szegedy"` or `"big_vision"`.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is wrong, the
            smoothing lies outside [0, 1], or the variant is unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> values = hard_cross_entropy(student, jnp.array([0, 1]))
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 1.6828

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
        2015, arXiv 1512.00567 (the smoothing).
    """
    labels = _labels(student_logits, teacher, axis, where, class_axis_name)
    checks.between("label_smoothing", label_smoothing, 0.0, 1.0)
    checks.one_of("variant", variant, SMOOTHING_VARIANTS)
    log_student = tempered_log_softmax(
        student_logits, 1.0, axis, where, class_axis_name
    )
    smoothing = jnp.asarray(label_smoothing, log_student.dtype)
    hit = mark_labels(labels, log_student, axis, where, class_axis_name)
    chosen = masked_sum(log_student, axis, hit, class_axis_name)
    # A class of minus infinity gets no share of the smoothing.
    finite = ~jnp.isneginf(log_student)
    if where is not None:
        finite = finite & jnp.broadcast_to(where, finite.shape)
    if variant == "szegedy":
        uniform = masked_mean(log_student, axis, finite, class_axis_name)
        value = -((1 - smoothing) * chosen + smoothing * uniform)
    else:
        rest = finite & ~hit
        others = masked_count(log_student, axis, rest, class_axis_name)
        total = masked_sum(log_student, axis, rest, class_axis_name)
        has_others = collectives.any_true(rest, axis, class_axis_name)
        smoothing = jnp.where(has_others, smoothing, 0)
        uniform = total / others
        value = x_log_x(1 - smoothing) - (1 - smoothing) * chosen
        value += x_log_x(smoothing) - smoothing * (jnp.log(others) + uniform)
    labeled = collectives.any_true(hit, axis, class_axis_name)
    return jnp.where(labeled, value, 0)


def class_weighted_cross_entropy(
    student_logits: Array,
    teacher_logits: Array,
    *,
    class_weights: Array,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Soft cross-entropy with a weight for each class, times T squared.

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
        `[...]`, one value in nats per example, at least float32; `mu` of hard with
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
