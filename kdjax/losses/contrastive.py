"""Losses that tell the teacher's answer for an example from those for others.

`info_nce` finds the others in the batch, so it means the global batch, as the kernels
of `kdjax.losses.relation` do. `contrastive_representation` is given them, as a rule
from the entries of a `kdjax.losses.memory.Memory`.
"""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pairs
from kdjax.core.numerics import l2_normalize, tempered_log_softmax, widen_together
from kdjax.core.types import Array


def info_nce(
    student_features: Array,
    teacher_features: Array,
    *,
    temperature: float | Array = 0.07,
    symmetric: bool = False,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Find the teacher's embedding of the same example among those of the batch.

    `-log softmax_j(<u_i, v_j> / temperature)[i]` with the student's rows `u` and the
    teacher's `v` scaled to unit length; if `symmetric`, the mean of this and of
    finding the student's row from the teacher's. There is no factor of the squared
    temperature: this is no tempered divergence, and published weights go without.

    Turning both sides alike changes nothing, nor does scaling any row. Equal inputs
    do not give 0; one example alone does. Tap embeddings of one width, behind an
    adapter on the student; the weight in use is 1.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: the same shape.
        temperature: a scalar above 0.
        symmetric: whether to ask in both directions.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per example, at least float32. The published loss is
        its plain mean (over the examples that take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, shapes differ, a dtype is not
            floating, or the temperature is not a finite number above 0.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 0], [1, 1], [0, 1], [1, 2]])
        >>> values = info_nce(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 1.3386

    Reference:
        van den Oord, Li, Vinyals, "Representation Learning with Contrastive
        Predictive Coding", 2018, arXiv 1807.03748.
    """
    checks.positive("temperature", temperature)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    checks.same_shape("teacher_features", teacher, "student_features", student)
    scores = gram(l2_normalize(student), l2_normalize(teacher))
    found = tempered_log_softmax(scores, temperature, 1, pairs(valid))
    if symmetric:
        back = tempered_log_softmax(scores, temperature, 0, pairs(valid))
        found = (found + back) / 2
    return -jnp.diagonal(found)


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
        raise ValueError(
            "student_memory: expected the positive and at least 1 negative, "
            f"got shape {student.shape}"
        )


def entry_scores(anchors: Array, entries: Array, temperature: Array) -> Array:
    """`<u, v> / temperature` of anchors scaled to unit length, `[N, 1 + m]`."""
    anchors, full = l2_normalize(anchors), lax.Precision.HIGHEST
    return jnp.einsum("nd,nmd->nm", anchors, entries, precision=full) / temperature


def contrastive_representation(
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
    """Tell the other network's memory of the same example from that of others (CRD).

    With `m` negatives, `c = m / examples` and `P = exp(<u, v> / temperature) / Z` for
    the anchor `u` of one network, of unit length, and the entries `v` of the other's
    memory, the positive first:

    `-log(P_0 / (P_0 + c + eps)) - sum_(i > 0) log(c / (P_i + c + eps))`,

    the student's anchor on the teacher's memory plus the reverse. `Z` is the mean of
    the exponentials times `examples`, taken once on the first batch
    (`memory_calibrate`) and then kept. Equal inputs do not give 0.

    Tap penultimate pooled features, behind a trained linear head of 128 numbers on
    either side. Published weight 0.8, with 16384 negatives of other classes than the
    anchor's. An example's value does not depend on the others of its batch: where the
    entries are too large, look up and evaluate a few anchors at a time under
    `jax.lax.map`. For the same reason there is no `where`: leave values out of the
    mean.

    Args:
        student_features: `[N, D]` embeddings, of any length.
        teacher_features: the same shape.
        student_memory: `[N, 1 + m, D]` entries of the student's memory, of which the
            first is the anchor's own; see `memory_lookup`.
        teacher_memory: the same of the teacher's memory, for the same examples.
        student_constant: `Z` for the student's anchors, a scalar above 0.
        teacher_constant: `Z` for the teacher's anchors.
        examples: how many examples the memory holds.
        temperature: a scalar above 0.
        eps: a scalar above 0, the authors' guard of the denominators. With many
            examples and few negatives it is not small beside `c`.

    Returns:
        `[N]`, one value in nats per example, at least float32, the sum of both
        directions. The published loss is its plain mean.

    Raises:
        ValueError: if shapes do not fit, an array is empty, there is no negative, a
            dtype is wrong, or a number is not finite and above 0.

    Example:
        >>> anchor = jnp.array([[1.0, 0.0]])
        >>> entries = jnp.array([[[1.0, 0], [0, 1], [0.6, 0.8]]])
        >>> values = contrastive_representation(
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
    student, teacher, student_memory, teacher_memory = widen_together(
        student_features, teacher_features, student_memory, teacher_memory
    )
    z_student, z_teacher, examples_, temperature, eps = (
        jnp.asarray(value, student.dtype) for value in numbers.values()
    )
    chance = (student_memory.shape[1] - 1) / examples_

    def direction(anchors: Array, entries: Array, constant: Array) -> Array:
        score = entry_scores(anchors, entries, temperature) - jnp.log(constant)
        total = jnp.logaddexp(score, jnp.log(chance + eps))
        negatives = jnp.sum(total[:, 1:] - jnp.log(chance), axis=1)
        return total[:, 0] - score[:, 0] + negatives

    return direction(student, teacher_memory, z_student) + direction(
        teacher, student_memory, z_teacher
    )
