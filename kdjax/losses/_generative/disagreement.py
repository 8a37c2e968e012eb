"""Disagreement of student and teacher, which a generator increases."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import divergence, possible, tempered_pair
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

DISAGREEMENT_VARIANTS = ("mean", "sum")


def generator_disagreement(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 1.0,
    variant: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Adversarial belief matching (ZSKT): minus the KL divergence to the teacher.

    `-T^2 KL(p || q)`, divided by the number of classes for `"mean"`: the generator of
    adversarial belief matching looks for images on which the student is furthest from
    the teacher, and the student then minimizes `softmax_kl` on them (over K, too) and
    `attention_transfer`. The published weights, 1 here and 250 for the attention, go
    with `"mean"`: the default. `"sum"` is minus `softmax_kl`.

    Args:
        student_logits: `[..., classes]` of generated images.
        teacher_logits: the same shape. Both networks pass the gradient to the images.
        temperature: a scalar above 0.
        variant: `"mean"` or `"sum"`.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, never positive, at least float32.

    Raises:
        ValueError: as in `softmax_kl`, or if the variant is unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{generator_disagreement(student, teacher).mean():.4f}")
        -0.2735

    Reference:
        Micaelli, Storkey, "Zero-shot Knowledge Transfer via Adversarial Belief
        Matching", 2019, arXiv 1905.09768.
    """
    checks.one_of("variant", variant, DISAGREEMENT_VARIANTS)
    log_student, log_teacher, scale = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    if variant == "sum":
        return -scale * divergence(log_teacher, log_student, axis, where)
    where = possible(student_logits, teacher_logits, where)
    share = jnp.exp(log_teacher)
    gap = jnp.where(share == 0, 0, log_teacher - log_student)
    return -scale * masked_mean(share * gap, axis, where)
