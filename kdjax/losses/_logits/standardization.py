"""Logit standardization: logits at mean 0 and standard deviation 1."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import check_pair, divergence, possible, tempered_pair
from kdjax.core.numerics import promote, promote_together, safe_sqrt
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array


def standardize_logits(
    logits: Array,
    *,
    ddof: int = 1,
    eps: float | Array = 1e-7,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Logit standardization: logits at mean 0 and standard deviation 1.

    `(z - mean(z)) / (std(z) + eps)`. Apply it to student and teacher before any
    loss on logits. For the KL divergence there is `standardized_kl`.

    Args:
        logits: `[..., classes]`. Minus infinity rules a class out: it stays, and enters
            neither mean nor deviation.
        ddof: what is taken off the number of classes in the variance, 1 or 0.
        eps: added to the deviation; in [0, 1].
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        The shape of the logits, at least float32; 0 where a class takes no part, and
        where all logits of an example are equal.

    Raises:
        ValueError: if the logits are empty or not floating, `ddof` is neither 0 nor 1,
            or `eps` lies outside [0, 1].

    Example:
        >>> print(standardize_logits(jnp.array([[1.0, 2.0, 3.0]])).round(4))
        [[-1.  0.  1.]]

    Reference:
        Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation",
        2024, arXiv 2403.01427.
    """
    checks.floating("logits", logits)
    checks.not_empty("logits", logits)
    checks.axis(axis, "logits", logits)
    checks.mask("where", where, logits.shape)
    checks.one_of("ddof", ddof, (0, 1))
    checks.between("eps", eps, 0.0, 1.0)
    logits = promote(logits)
    impossible = jnp.isneginf(logits)
    if where is not None:
        impossible = impossible & jnp.broadcast_to(where, logits.shape)
    where = ~impossible if where is None else where & ~impossible
    gap = logits - jnp.expand_dims(masked_mean(logits, axis, where), axis)
    gap = jnp.where(where, gap, 0)
    freedom = jnp.maximum(masked_count(logits, axis, where) - ddof, 1)
    deviation = safe_sqrt(masked_sum(jnp.square(gap), axis, where) / freedom)
    deviation = jnp.expand_dims(deviation, axis)
    flat = deviation == 0
    unit = jnp.where(flat, 1, deviation + jnp.asarray(eps, deviation.dtype))
    return jnp.where(impossible, -jnp.inf, jnp.where(flat, 0, gap) / unit)


def standardized_kl(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 2.0,
    ddof: int = 1,
    eps: float | Array = 1e-7,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Logit standardization in KD (LSKD): `softmax_kl` of z-scored logits.

    Each example's logits become `(z - mean(z)) / (std(z) + eps)` for student and
    teacher. A shift or a positive scale of student or teacher then changes nothing (but
    for `eps`), and the student need not reach the size of the teacher's logits. Logits
    all equal become 0 with gradient 0.

    Args:
        student_logits: `[..., classes]`, before any softmax. Rule classes out with
            minus infinity for student and teacher, or with `where`: a large negative
            number would enter mean and deviation.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        ddof: what is taken off the number of classes in the variance: 1 as in the
            released code (torch's deviation), or 0 (NumPy's). They differ as if the
            temperature were `sqrt(K / (K - 1))` larger.
        eps: added to the deviation; in [0, 1].
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        on CIFAR-100 is 9 at `T = 2` with a cross-entropy of weight 0.1.

    Raises:
        ValueError: as in `softmax_kl`, or if `ddof` is neither 0 nor 1, or `eps` lies
            outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[10.0, 20.0, 30.0], [1.0, 1.0, -1.0]])
        >>> print(f"{abs(standardized_kl(student, teacher)).max():.4f}")
        0.0000

    Reference:
        Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation",
        2024, arXiv 2403.01427.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    where = possible(student_logits, teacher_logits, where)
    student, teacher = (
        standardize_logits(x, ddof=ddof, eps=eps, axis=axis, where=where)
        for x in promote_together(student_logits, teacher_logits)
    )
    log_student, log_teacher, scale = tempered_pair(
        student, teacher, temperature, axis, where
    )
    return scale * divergence(log_teacher, log_student, axis, where)
