"""Losses on logits in which the labels make the teacher or weigh it."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from kdjax.core import checks
from kdjax.core.numerics import tempered_log_softmax, widen, widen_together
from kdjax.core.reduce import masked_count, masked_sum
from kdjax.core.types import Array
from kdjax.losses._logits import (
    check_ids,
    cross_entropy,
    divergence,
    hits,
    tempered_pair,
)

FORMS = ("described", "released")


def weighted_soft_label(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 2.0,
    form: str = "released",
    eps: float | Array = 1e-7,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Soft cross-entropy, weighed by how far the student is behind on the label.

    `w T^2 (-sum_k p_k log q_k)` with the probabilities of `soft_cross_entropy` and
    `w = 1 - exp(-c_s / (c_t + eps))`, where `c_s` and `c_t` are the student's and the
    teacher's cross-entropy with the label at temperature 1. An example on which the
    student has overtaken the teacher counts little.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape.
        labels: integer class ids `[...]`. A negative id, or one of a class that
            takes no part, marks an example without label: it gives 0.
        temperature: a scalar above 0.
        form: the two have one value and differ in the gradient. In `"released"` `w`
            is a constant to the gradient of either side. That belongs to this form,
            as in the authors' code with which the published weight was tuned: hence
            the default. The gradient through the softened
            probabilities flows to both sides all the same. In `"described"` it flows
            through the weight too, as the formula alone would have it.
        eps: added to the teacher's cross-entropy; in [1e-12, 1].
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        on ImageNet is 2.5 at `T = 2` beside a cross-entropy of weight 1. It is not 0
        where the two agree.

    Raises:
        ValueError: as in `softmax_kl`, or if the labels are not integers of the shape
            of the examples, the form is unknown, or `eps` lies outside [1e-12, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = weighted_soft_label(student, teacher, labels=jnp.array([0, 1]))
        >>> print(f"{values.mean():.4f}")
        4.8254

    Reference:
        Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A
        Bias-Variance Tradeoff Perspective", 2021, arXiv 2102.00650.
    """
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    check_ids("labels", labels, student_logits, axis)
    checks.one_of("form", form, FORMS)
    checks.between("eps", eps, 1e-12, 1.0)
    hit = hits(labels, log_student, axis, where)
    student_cost, teacher_cost = (
        _label_cost(x, hit, axis, where)
        for x in widen_together(student_logits, teacher_logits)
    )
    labelled = jnp.any(hit, axis)
    behind = student_cost / (
        jnp.where(labelled, teacher_cost, 1) + jnp.asarray(eps, scale.dtype)
    )
    weight = -jnp.expm1(-behind)
    if form == "released":
        weight = lax.stop_gradient(weight)
    cost = cross_entropy(log_teacher, log_student, axis, where)
    return jnp.where(labelled, scale * weight * cost, 0)


def _label_cost(logits: Array, hit: Array, axis: int, where: Array | None) -> Array:
    """Cross-entropy with the label, to full precision where it is nearly 0 too."""
    others = ~hit if where is None else ~hit & jnp.broadcast_to(where, hit.shape)
    logits = jnp.where(hit | others, logits, 0)
    rest = logsumexp(logits, axis, where=others)
    rest = jnp.where(jnp.any(others, axis), rest, -jnp.inf)
    return jax.nn.softplus(rest - masked_sum(logits, axis, hit))


def teacher_free_kl(
    student_logits: Array,
    labels: Array,
    *,
    correct: float | Array = 0.99,
    temperature: float | Array = 20.0,
    form: str = "released",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Divergence from a teacher made by hand, sure of the label and of nothing else.

    That teacher is `u`: `a` at the label and `(1 - a) / (K - 1)` elsewhere.
    `"released"`: `KL(softmax(u / T) | softmax(student_logits))`, as in the authors'
    code: the probabilities `u` serve as logits, so at `T = 20` the target is all but
    uniform, and the student has no temperature and the loss no `T^2`. The default,
    since the published weight belongs to it.
    `"described"`: `T^2 KL(p | q)` with `p` proportional to `u^(1/T)` and
    `q = softmax(student_logits / T)`: `softmax_kl` with the teacher logits `log u`,
    our reading of the paper's formula.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        labels: integer class ids `[...]`. A negative id, or one of a class that
            takes no part, marks an example without label: it gives 0.
        correct: `a`, the probability of the label, in [0, 1].
        temperature: a scalar above 0.
        form: `"released"` or `"described"`.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. No teacher need run.
        The weight of `"released"` is published in the authors' repository for
        CIFAR-100: `reg_alpha` 0.1 beside 0.9 for the cross-entropy, at `T = 20`. Their
        multiplier 100 stands before a `KLDivLoss` that averages over the K classes as
        well: at `K = 100` the two cancel to exactly this kernel, at another K theirs
        is `multiplier / K` times it.

    Raises:
        ValueError: if the logits are empty or not floating, the labels not integers
            of the shape of the examples, a knob is out of range, or the form unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> values = teacher_free_kl(student, jnp.array([0, 1]))
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 0.1747

    Reference:
        Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label
        Smoothing Regularization", 2019, arXiv 1909.11723.
    """
    checks.floating("student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    check_ids("labels", labels, student_logits, axis)
    checks.mask("where", where, student_logits.shape)
    checks.between("correct", correct, 0.0, 1.0)
    checks.positive("temperature", temperature)
    checks.one_of("form", form, FORMS)
    student = widen(student_logits)
    hit = hits(labels, student, axis, where)
    target = _virtual_teacher(student, hit, correct, axis, where)
    scale = jnp.square(jnp.asarray(temperature, student.dtype))
    if form == "described":
        target = jnp.log(target)
    else:
        scale = jnp.ones_like(scale)
    log_target = tempered_log_softmax(target, temperature, axis, where)
    at = temperature if form == "described" else 1.0
    log_student = tempered_log_softmax(student, at, axis, where)
    value = scale * divergence(log_target, log_student, axis, where)
    return jnp.where(jnp.any(hit, axis), value, 0)


def _virtual_teacher(
    student: Array, hit: Array, correct: float | Array, axis: int, where: Array | None
) -> Array:
    """Probabilities: `correct` at the label, what is left shared by the others."""
    correct = jnp.asarray(correct, student.dtype)
    others = jnp.maximum(masked_count(student, axis, where) - 1, 1)
    share = jnp.broadcast_to((1 - correct) / others, hit.any(axis).shape)
    return jnp.where(hit, correct, jnp.expand_dims(share, axis))
