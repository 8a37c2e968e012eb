"""Teacher-free distillation (Tf-KD)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import check_ids, divergence, mark_labels
from kdjax.core.numerics import promote, tempered_log_softmax
from kdjax.core.reduce import masked_count
from kdjax.core.types import Array

VARIANTS = ("described", "released")


def tf_kd(
    student_logits: Array,
    labels: Array,
    *,
    correct: float | Array = 0.99,
    temperature: float | Array = 20.0,
    variant: str = "released",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Teacher-free KD (Tf-KD): KL divergence to a hand-made virtual teacher.

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
        variant: `"released"` or `"described"`.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. No teacher need run.
        The weight of `"released"` is published in the authors' repository for
        CIFAR-100: `reg_alpha` 0.1 with 0.9 for the cross-entropy, at `T = 20`. Their
        multiplier 100 stands before a `KLDivLoss` that averages over the K classes as
        well: at `K = 100` the two cancel to exactly this kernel, at another K theirs
        is `multiplier / K` times it.

    Raises:
        ValueError: if the logits are empty or not floating, the labels not integers
            of the shape of the examples, an option is out of range, or the variant is
            unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> values = tf_kd(student, jnp.array([0, 1]))
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 0.1747

    Reference:
        Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label
        Smoothing Regularization", 2019, arXiv 1909.11723.
    """
    checks.floating("student_logits", student_logits)
    checks.not_empty("student_logits", student_logits)
    check_ids("labels", labels, student_logits, axis)
    checks.classes("student_logits", student_logits, axis)
    checks.mask("where", where, student_logits.shape)
    checks.between("correct", correct, 0.0, 1.0)
    checks.temperature("temperature", temperature)
    checks.one_of("variant", variant, VARIANTS)
    student = promote(student_logits)
    hit = mark_labels(labels, student, axis, where)
    # A class of minus infinity gets no share of the virtual teacher's mass.
    finite = hit | ~jnp.isneginf(student)
    if where is not None:
        finite = finite & jnp.broadcast_to(where, finite.shape)
    where = finite
    target = _virtual_teacher(student, hit, correct, axis, where)
    scale = jnp.square(jnp.asarray(temperature, student.dtype))
    if variant == "described":
        target = jnp.log(target)
    else:
        scale = jnp.ones_like(scale)
    log_target = tempered_log_softmax(target, temperature, axis, where)
    at = temperature if variant == "described" else 1.0
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
