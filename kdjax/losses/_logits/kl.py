"""Kullback-Leibler divergences between softmax outputs, and their mixtures."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import divergence, tempered_pair
from kdjax.core.types import Array


def softmax_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Knowledge distillation (KD): KL divergence to the teacher, times T squared.

    `T^2 sum_k p_k (log p_k - log q_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. The factor keeps the size of the gradient
    about the same at every temperature; for large `T` the loss tends to half the
    squared distance of the centered logits over the number of classes.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class of teacher probability 0 costs
            nothing, so a class may be ruled out with minus infinity for student and
            teacher.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes over
            devices, if any. Each device passes its own classes, in order of device,
            and has the values of all classes. `where` is divided alike.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published loss
        is its plain mean.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or the
            temperature is not within 1e-6 and 1e6.

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
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    return scale * divergence(log_teacher, log_student, axis, where, class_axis_name)


def reverse_softmax_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Reverse KL (MiniLLM): KL divergence from the teacher, times T squared.

    `T^2 sum_k q_k (log q_k - log p_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T)`. It seeks modes: mass of the student
    where the teacher has none is expensive, and missing modes of the teacher are not.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class of student probability 0 costs nothing.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
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
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    return scale * divergence(log_student, log_teacher, axis, where, class_axis_name)


def jeffreys(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Jeffreys divergence: the sum of both KL divergences, times T squared.

    `T^2 sum_k (p_k - q_k) (log p_k - log q_k)` with the probabilities of `softmax_kl`.
    The sum, not the mean, of `softmax_kl` and `reverse_softmax_kl`; symmetric.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
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
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    forward = divergence(log_teacher, log_student, axis, where, class_axis_name)
    return scale * (
        forward + divergence(log_student, log_teacher, axis, where, class_axis_name)
    )


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
    class_axis_name: str | None = None,
    where: Array | None = None,
) -> Array:
    """Jensen-Shannon divergence (JSD), generalized as in GKD, times T squared.

    `T^2 (b KL(p | m) + (1 - b) KL(q | m))` with `m = b p + (1 - b) q` and the
    probabilities `p` (teacher) and `q` (student) of `softmax_kl`. At `b = 1/2` this
    is the Jensen-Shannon divergence, symmetric and at most `T^2 log 2`.

    As published, `b = 0` means `softmax_kl` and `b = 1` `reverse_softmax_kl`. The loss
    is thus not continuous in `b`: the formula goes to 0 at both ends, and only divided
    by `b` or by `1 - b` to those two.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape. A class may be ruled out with minus infinity
            for student, teacher or both.
        beta: `b`, the teacher's share of the mixture, a scalar in [0, 1].
        temperature: a scalar above 0.
        axis: the axis of the classes.
        class_axis_name: the axis of `shard_map` or `pmap` that divides the classes, if
            any; see `softmax_kl`.
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
        student_logits, teacher_logits, temperature, axis, where, class_axis_name
    )
    return scale * mixture_divergence(
        log_student, log_teacher, beta, axis, where, class_axis_name
    )


def mixture_divergence(
    log_student: Array,
    log_teacher: Array,
    beta: float | Array,
    axis: int,
    where: Array | None,
    axis_name: str | None = None,
) -> Array:
    """`jensen_shannon` of log-probabilities, without the squared temperature.

    Raises `ValueError` if `beta` lies outside [0, 1].
    """
    checks.between("beta", beta, 0.0, 1.0)
    beta = jnp.asarray(beta, log_student.dtype)
    inside = (beta > 0) & (beta < 1)
    share = jnp.where(inside, beta, 0.5)
    mixture = _log_mixture(log_teacher, log_student, share)
    value = share * divergence(log_teacher, mixture, axis, where, axis_name)
    value += (1 - share) * divergence(log_student, mixture, axis, where, axis_name)
    # Selected before it is computed: the other end may be infinite.
    first = jnp.where(beta == 1, log_student, log_teacher)
    second = jnp.where(beta == 0, log_student, log_teacher)
    end = divergence(first, second, axis, where, axis_name)
    return jnp.where(inside, value, end)
