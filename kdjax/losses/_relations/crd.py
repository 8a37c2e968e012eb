"""Contrastive representation distillation (CRD)."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import l2_normalize, promote_together
from kdjax.core.types import Array


def check_anchors(student: Array, teacher: Array) -> None:
    """Refuse embeddings that are not two matrices of one shape."""
    checks.matching_pair("features", student, teacher)
    checks.rank("student_features", student, 2)


def check_entries(anchors: Array, student: Array, teacher: Array) -> None:
    """Refuse entries `[N, 1 + m, D]` that do not fit the anchors or each other."""
    for name, x in (("student_memory", student), ("teacher_memory", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 3)
        checks.shape(name, x, (anchors.shape[0], student.shape[1], anchors.shape[1]))
    if student.shape[1] < 2:
        expected = "the positive and at least 1 negative"
        checks.refuse("student_memory", expected, f"shape {student.shape}")


def entry_scores(anchors: Array, entries: Array, temperature: Array) -> Array:
    """`<u, v> / temperature` of anchors scaled to unit length, `[N, 1 + m]`."""
    anchors, full = l2_normalize(anchors), lax.Precision.HIGHEST
    return jnp.einsum("nd,nmd->nm", anchors, entries, precision=full) / temperature


def crd(
    student_features: Array,
    teacher_features: Array,
    *,
    student_memory: Array,
    teacher_memory: Array,
    student_constant: float | Array,
    teacher_constant: float | Array,
    examples: int,
    temperature: float | Array = 0.07,
    eps: float | Array = 1e-7,
) -> Array:
    """Contrastive representation distillation (CRD): noise-contrastive loss.

    With `m` negatives, `c = m / examples` and `P = exp(<u, v> / temperature) / Z` for
    the anchor `u` of one network, of unit length, and the entries `v` of the other's
    memory, the positive first:

    `-log(P_0 / (P_0 + c + eps)) - sum_(i > 0) log(c / (P_i + c + eps))`,

    the student's anchor on the teacher's memory plus the reverse. `Z` is the mean of
    the exponentials times `examples`, taken once on the first batch
    (`crd_memory_calibrate`) and then kept. Equal inputs do not give 0.

    Tap penultimate pooled features, behind a trained linear head of 128 numbers on
    student or teacher. Published weight 0.8, with 16384 negatives of other classes than
    the anchor's. An example's value does not depend on the others of its batch: where
    the entries are too large, look up and evaluate a few anchors at a time under
    `jax.lax.map`. For the same reason there is no `where`: leave values out of the
    mean.

    Args:
        student_features: `[N, D]` embeddings, of any length.
        teacher_features: the same shape.
        student_memory: `[N, 1 + m, D]` entries of the student's memory, of which the
            first is the anchor's own; see `crd_memory_lookup`.
        teacher_memory: the same of the teacher's memory, for the same examples.
        student_constant: `Z` for the student's anchors, a scalar above 0.
        teacher_constant: `Z` for the teacher's anchors.
        examples: how many examples the memory holds.
        temperature: a scalar above 0.
        eps: a scalar above 0, the authors' guard of the denominators. With many
            examples and few negatives it is not small against `c`.

    Returns:
        `[N]`, one value in nats per example, at least float32, the sum of both
        directions. The published loss is its plain mean.

    Raises:
        ValueError: if shapes do not fit, an array is empty, there is no negative, a
            dtype is wrong, or a number is not finite and above 0.

    Example:
        >>> anchor = jnp.array([[1.0, 0.0]])
        >>> entries = jnp.array([[[1.0, 0], [0, 1], [0.6, 0.8]]])
        >>> values = crd(
        ...     anchor,
        ...     anchor,
        ...     student_memory=entries,
        ...     teacher_memory=entries,
        ...     student_constant=10.0,
        ...     teacher_constant=10.0,
        ...     examples=5,
        ...     temperature=1.0,
        ... )
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 3.0067

    Reference:
        Tian, Krishnan, Isola, "Contrastive Representation Distillation", 2020,
        arXiv 1910.10699.
    """
    check_anchors(student_features, teacher_features)
    check_entries(student_features, student_memory, teacher_memory)
    numbers = {
        "student_constant": student_constant,
        "teacher_constant": teacher_constant,
        "examples": examples,
        "temperature": temperature,
        "eps": eps,
    }
    for name, value in numbers.items():
        checks.positive(name, value)
    checks.temperature("temperature", temperature)
    student, teacher, student_memory, teacher_memory = promote_together(
        student_features, teacher_features, student_memory, teacher_memory
    )
    z_student, z_teacher, examples_, temperature, eps = (
        jnp.asarray(value, student.dtype) for value in numbers.values()
    )
    chance = (student_memory.shape[1] - 1) / examples_

    # log P/(P + c) as -logaddexp: scores of order 1/T overflow as exponentials.
    def direction(anchors: Array, entries: Array, constant: Array) -> Array:
        score = entry_scores(anchors, entries, temperature) - jnp.log(constant)
        total = jnp.logaddexp(score, jnp.log(chance + eps))
        negatives = jnp.sum(total[:, 1:] - jnp.log(chance), axis=1)
        return total[:, 0] - score[:, 0] + negatives

    return direction(student, teacher_memory, z_student) + direction(
        teacher, student_memory, z_teacher
    )
