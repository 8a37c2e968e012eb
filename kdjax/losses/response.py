"""Losses between what two networks answer: their logits."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import tempered_log_softmax, widen_together
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses._logits import (
    check_ids,
    check_pair,
    cross_entropy,
    divergence,
    hits,
    tempered_pair,
    x_log_x,
)

SMOOTHING_CONVENTIONS = ("big_vision", "szegedy")


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
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    return scale * divergence(log_teacher, log_student, axis, where)


def reverse_softmax_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Kullback-Leibler divergence from student to teacher, times temperature squared.

    `T^2 sum_k q_k (log q_k - log p_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. It seeks modes: the student pays for what it
    says and the teacher does not, and may leave out what the teacher says besides.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class of student probability 0 costs nothing.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. Language models are
        distilled with it alone, with weight 1 and `T = 1`.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{reverse_softmax_kl(student, teacher).mean():.4f}")
        0.9311

    Reference:
        Gu, Dong, Wei, Huang, "MiniLLM: Knowledge Distillation of Large Language
        Models", 2023, arXiv 2306.08543.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    return scale * divergence(log_student, log_teacher, axis, where)


def jeffreys(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Both Kullback-Leibler divergences added, times temperature squared.

    `T^2 sum_k (p_k - q_k) (log p_k - log q_k)` with the probabilities of `softmax_kl`.
    The sum, not the mean, of `softmax_kl` and `reverse_softmax_kl`; symmetric.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. No weight is
        standard: half of that of `softmax_kl` keeps the size of the gradient.

    Raises:
        ValueError: as in `softmax_kl`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{jeffreys(student, teacher).mean():.4f}")
        1.7518

    Reference:
        Jeffreys, "An Invariant Form for the Prior Probability in Estimation
        Problems", 1946, doi 10.1098/rspa.1946.0056.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    forward = divergence(log_teacher, log_student, axis, where)
    return scale * (forward + divergence(log_student, log_teacher, axis, where))


def _log_mixture(log_teacher: Array, log_student: Array, beta: Array) -> Array:
    # A class that both rule out is replaced: the derivative there is inf - inf.
    gone = jnp.isneginf(log_teacher) & jnp.isneginf(log_student)
    log_teacher = jnp.where(gone, 0, log_teacher) + jnp.log(beta)
    log_student = jnp.where(gone, 0, log_student) + jnp.log1p(-beta)
    return jnp.logaddexp(log_teacher, log_student)


def jensen_shannon(
    student_logits: Array,
    teacher_logits: Array,
    *,
    beta: float | Array = 0.5,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence of both sides from their mixture, times temperature squared.

    `T^2 (b KL(p | m) + (1 - b) KL(q | m))` with `m = b p + (1 - b) q` and the
    probabilities `p` (teacher) and `q` (student) of `softmax_kl`. At `b = 1/2` this
    is the Jensen-Shannon divergence, symmetric and at most `T^2 log 2`.

    As published, `b = 0` means `softmax_kl` and `b = 1` `reverse_softmax_kl`. The loss
    is thus not continuous in `b`: the formula goes to 0 at both ends, and only divided
    by `b` or by `1 - b` to those two.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class may be ruled out with minus infinity
            on either side or on both.
        beta: `b`, the teacher's share of the mixture, a scalar in [0, 1].
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. It stands
        alone, with weight 1; TRL has `b = 1/2` and `T = 1`.

    Raises:
        ValueError: as in `softmax_kl`, or if `beta` lies outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{jensen_shannon(student, teacher).mean():.4f}")
        0.1905

    Reference:
        Agarwal et al., "On-Policy Distillation of Language Models: Learning from
        Self-Generated Mistakes", 2023, arXiv 2306.13649.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    checks.between("beta", beta, 0.0, 1.0)
    beta = jnp.asarray(beta, scale.dtype)
    share = jnp.where((beta > 0) & (beta < 1), beta, 0.5)
    mixture = _log_mixture(log_teacher, log_student, share)
    value = share * divergence(log_teacher, mixture, axis, where)
    value += (1 - share) * divergence(log_student, mixture, axis, where)
    forward = divergence(log_teacher, log_student, axis, where)
    reverse = divergence(log_student, log_teacher, axis, where)
    value = jnp.where(beta == 0, forward, jnp.where(beta == 1, reverse, value))
    return scale * value


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
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    return scale * cross_entropy(log_teacher, log_student, axis, where)


def _labels(
    student_logits: Array, teacher: Array, axis: int, where: Array | None
) -> Array:
    """The class id of every example."""
    checks.floating("student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    checks.axis(axis, "student_logits", student_logits)
    checks.mask("where", where, student_logits.shape)
    if checks.is_integer(teacher):
        check_ids("teacher", teacher, student_logits, axis)
        return teacher
    if not checks.is_floating(teacher):
        checks.refuse_dtype(
            "teacher", "class ids (integer) or logits (floating)", teacher
        )
    checks.same_shape("teacher", teacher, "student_logits", student_logits)
    if where is not None:
        selected = jnp.broadcast_to(where, teacher.shape)
        teacher = jnp.where(selected, teacher, -jnp.inf)
    return jnp.argmax(teacher, axis)


def hard_cross_entropy(
    student_logits: Array,
    teacher: Array,
    *,
    label_smoothing: float | Array = 0.0,
    convention: str = "szegedy",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Cross-entropy against one class per example: a label or the teacher's choice.

    `"szegedy"`: `-sum_k y_k log q_k` with `q = softmax(student_logits)` and
    `y = (1 - s) onehot + s / K`: the smoothing is uniform over all K classes.
    `"big_vision"`: `sum_k y_k (log y_k - log q_k)` with `1 - s` at the label and
    `s / (K - 1)` elsewhere: the smoothing is uniform over the other classes, and the
    entropy of the target is taken off, so that a student that says `y` pays nothing.
    Without smoothing the two agree. Most recipes mean the first: the default.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher: integer class ids `[...]`, or floating logits `[..., classes]` whose
            largest entry is the label. A negative id, or one of a class that takes no
            part, marks an example without label: it gives 0.
        label_smoothing: `s`, a scalar in [0, 1].
        convention: `"szegedy"` or `"big_vision"`.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is wrong, the
            smoothing lies outside [0, 1], or the convention is unknown.

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
    checks.one_of("convention", convention, SMOOTHING_CONVENTIONS)
    log_student = tempered_log_softmax(student_logits, 1.0, axis, where)
    smoothing = jnp.asarray(label_smoothing, log_student.dtype)
    hit = hits(labels, log_student, axis, where)
    chosen = masked_sum(log_student, axis, hit)
    if convention == "szegedy":
        uniform = masked_mean(log_student, axis, where)
        value = -((1 - smoothing) * chosen + smoothing * uniform)
    else:
        others = masked_count(log_student, axis, where) - 1
        smoothing = jnp.where(others > 0, smoothing, 0)
        others = jnp.maximum(others, 1)
        uniform = (masked_sum(log_student, axis, where) - chosen) / others
        value = x_log_x(1 - smoothing) - (1 - smoothing) * chosen
        value += x_log_x(smoothing) - smoothing * (jnp.log(others) + uniform)
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
    check_pair(student_logits, teacher_logits, axis, where)
    student, teacher = widen_together(student_logits, teacher_logits)
    gap = student - teacher
    if where is not None:
        gap = jnp.where(jnp.broadcast_to(where, gap.shape), gap, 0)
    if centre:
        gap = gap - jnp.expand_dims(masked_mean(gap, axis, where), axis)
    return masked_mean(jnp.square(gap), axis, where)
