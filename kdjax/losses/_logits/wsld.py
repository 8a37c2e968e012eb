"""Weighted soft labels (WSLD)."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from kdjax.core import checks
from kdjax.core.logits import check_ids, cross_entropy, mark_labels, tempered_pair
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array

VARIANTS = ("described", "released")


def wsld(
    student_logits: Array,
    teacher_logits: Array,
    *,
    labels: Array,
    temperature: float | Array = 2.0,
    variant: str = "released",
    eps: float | Array = 1e-7,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Weighted soft labels (WSLD): soft cross-entropy, weighted example by example.

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
        variant: the two have one value and differ in the gradient. In `"released"` `w`
            is a constant to the gradient of student or teacher. That belongs to this
            form, as in the authors' code with which the published weight was tuned:
            hence the default. The gradient through the softened probabilities flows to
            student and teacher all the same. In `"described"` it flows through the
            weight too, as the formula alone would have it.
        eps: added to the teacher's cross-entropy; in [1e-12, 1].
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        on ImageNet is 2.5 at `T = 2` with a cross-entropy of weight 1. It is not 0
        where the two agree.

    Raises:
        ValueError: as in `softmax_kl`, or if the labels are not integers of the shape
            of the examples, the variant is unknown, or `eps` lies outside [1e-12, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = wsld(student, teacher, labels=jnp.array([0, 1]))
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
    checks.one_of("variant", variant, VARIANTS)
    checks.between("eps", eps, 1e-12, 1.0)
    hit = mark_labels(labels, log_student, axis, where)
    student_cost, teacher_cost = (
        _label_cost(x, hit, axis, where)
        for x in promote_together(student_logits, teacher_logits)
    )
    labeled = jnp.any(hit, axis)
    behind = student_cost / (
        jnp.where(labeled, teacher_cost, 1) + jnp.asarray(eps, scale.dtype)
    )
    weight = -jnp.expm1(-behind)
    if variant == "released":
        weight = lax.stop_gradient(weight)
    cost = cross_entropy(log_teacher, log_student, axis, where)
    return jnp.where(labeled, scale * weight * cost, 0)


def _label_cost(logits: Array, hit: Array, axis: int, where: Array | None) -> Array:
    """Cross-entropy with the label, to full precision where it is nearly 0 too."""
    others = ~hit if where is None else ~hit & jnp.broadcast_to(where, hit.shape)
    logits = jnp.where(hit | others, logits, 0)
    rest = logsumexp(logits, axis, where=others)
    rest = jnp.where(jnp.any(others, axis), rest, -jnp.inf)
    return jax.nn.softplus(rest - masked_sum(logits, axis, hit))
