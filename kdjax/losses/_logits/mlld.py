"""Multi-level logit distillation (MLLD) and its parts."""

import jax.numpy as jnp

from kdjax.core import checks, examples
from kdjax.core.logits import divergence, possible
from kdjax.core.numerics import tempered_log_softmax
from kdjax.core.reduce import masked_count
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch
from kdjax.losses._logits._batch import batch_logits
from kdjax.losses._logits.standardization import standardize_logits

VARIANTS = ("described", "released")
VIEWS = ("strong", "weak")
# Of mlld: weights of the divergence at T = 2, 3, 4, 5, 6 and of the Gram
# matrices. The released masks by confidence multiply means: a factor of one half. Its
# sum for the strong view takes T = 2 and 6 from the weak one and leaves out the Gram
# matrices it computes.
_LEVELS = {
    ("described", "weak"): ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0),
    ("described", "strong"): ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0),
    ("released", "weak"): ((1.5, 0.5, 0.5, 0.5, 1.5), 0.5),
    ("released", "strong"): ((0.0, 1.0, 1.0, 1.0, 0.0), 0.0),
}


def _batch_gaps(student: Array, teacher: Array) -> Array:
    """`[N]`: squared differences of the Gram matrices of the batch, row by row."""
    return jnp.sum(jnp.square(examples.gram(teacher) - examples.gram(student)), 1)


def _class_gap(student: Array, teacher: Array, classes: Array) -> Array:
    """Squared difference of the Gram matrices of the classes, over their number."""
    gap = examples.gram(teacher.T) - examples.gram(student.T)
    return jnp.sum(jnp.square(gap)) / classes


def _count_classes(student: Array, teacher: Array, valid: Array) -> Array:
    """Number of classes that student and teacher do not rule out in every example."""
    entries = possible(student, teacher, valid[:, None])
    return masked_count(student[0], None, jnp.any(entries, 0))


def _shares(logits: Array, temperature: float | Array, valid: Array) -> Array:
    """Probabilities, 0 in rows that are left out."""
    shares = jnp.exp(tempered_log_softmax(logits, temperature))
    return jnp.where(valid[:, None], shares, 0)


@over_global_batch()
def mlld(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 4.0,
    variant: str = "released",
    view: str = "weak",
    standardize: bool = False,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Multi-level logit distillation (MLLD): example, batch and class alignment.

    At each temperature t of 2, 3, `T`, 5, 6, with predictions `P = softmax(z / t)`:
    `t^2 KL(p_i | q_i)`, the example's own; `sum_j (<p_i, p_j> - <q_i, q_j>)^2`, its
    row of the Gram matrices of the batch; `|P'P - Q'Q|^2 / K`, which belongs to the
    batch as a whole and is the same for every example.

    `"described"`: the sum of all fifteen, for either view.
    `"released"`: what the authors' code adds up, which is not that. On the weak view
    the divergences count one half, those at 2 and 6 three halves, the Gram matrices
    one half; on the strong view only the divergences at 3, `T` and 5 count, once. (A
    mask by confidence multiplies a mean there, and so is this half; for an odd batch
    it is `(N + 1) / 2N`.) The default, since the published accuracies are this form's.

    Args:
        student_logits: `[N, classes]` of one view of the global batch.
        teacher_logits: the same shape, on the same view.
        temperature: `T`, the third of the five; a scalar above 0.
        variant: `"released"` or `"described"`.
        view: `"weak"` or `"strong"` (augmentation); add the loss of both.
        standardize: whether the divergences compare logits brought to mean 0 and
            deviation 1 (`standardize_logits`). The Gram matrices keep the logits as
            they are; that split is our reading of how the two methods are combined.
        axis: the axis of the classes.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The published loss of the view
        is their plain mean (over the examples that take part), with weight 0.9 with
        a cross-entropy of weight 0.1 on each view.

    Raises:
        ValueError: as in `softmax_kl`, or if the logits are not of rank 2, or the
            variant or view is unknown.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = mlld(student, teacher, view="strong")
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 3.1004

    Reference:
        Jin, Wang, Lin, "Multi-Level Logit Distillation", CVPR 2023,
        doi 10.1109/CVPR52729.2023.02325.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = batch_logits(student_logits, teacher_logits, axis, where)
    checks.temperature("temperature", temperature)
    checks.one_of("variant", variant, VARIANTS)
    checks.one_of("view", view, VIEWS)
    checks.boolean("standardize", standardize)
    weights, gram_weight = _LEVELS[variant, view]
    value = jnp.zeros(valid.shape, student.dtype)
    classes = _count_classes(student, teacher, valid)
    sides = (student, teacher)
    if standardize:
        sides = tuple(standardize_logits(x) for x in sides)
    for weight, level in zip(weights, (2.0, 3.0, temperature, 5.0, 6.0), strict=True):
        if weight:
            log_student, log_teacher = (tempered_log_softmax(x, level) for x in sides)
            scale = weight * jnp.square(jnp.asarray(level, student.dtype))
            value += scale * divergence(log_teacher, log_student)
        if gram_weight:
            ours, theirs = (_shares(x, level, valid) for x in (student, teacher))
            gaps = _batch_gaps(ours, theirs) + _class_gap(ours, theirs, classes)
            value += gram_weight * gaps
    return jnp.where(valid, value, 0)


@over_global_batch()
def mlld_batch(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 4.0,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """MLLD, batch level: squared distance between Gram matrices of the examples.

    For the example i: `sum_j (<p_i, p_j> - <q_i, q_j>)^2` with the teacher's and the
    student's `softmax(logits / T)`. `mlld` adds it up over five temperatures.

    Args:
        student_logits: `[N, classes]` of the global batch, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The published loss,
        `|P P' - Q Q'|^2 / N`, is its plain mean (over the examples that take part).

    Raises:
        ValueError: as in `mlld`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = mlld_batch(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 0.0730

    Reference:
        Jin, Wang, Lin, "Multi-Level Logit Distillation", CVPR 2023,
        doi 10.1109/CVPR52729.2023.02325.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = batch_logits(student_logits, teacher_logits, axis, where)
    checks.temperature("temperature", temperature)
    shares = [_shares(x, temperature, valid) for x in (student, teacher)]
    return jnp.where(valid, _batch_gaps(*shares), 0)


@over_global_batch()
def mlld_class(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 4.0,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """MLLD, class level: squared distance between Gram matrices of the classes.

    `|P' P - Q' Q|^2 / K` with the teacher's and the student's `softmax(logits / T)`,
    `[N, K]`. It belongs to the batch as a whole: every example has the same value.
    `mlld` adds it up over five temperatures.

    Args:
        student_logits: `[N, classes]` of the global batch, before any softmax.
        teacher_logits: the same shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The published loss is its plain
        mean (over the examples that take part).

    Raises:
        ValueError: as in `mlld`.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> values = mlld_class(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (2,) 0.2268

    Reference:
        Jin, Wang, Lin, "Multi-Level Logit Distillation", CVPR 2023,
        doi 10.1109/CVPR52729.2023.02325.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = batch_logits(student_logits, teacher_logits, axis, where)
    checks.temperature("temperature", temperature)
    ours, theirs = (_shares(x, temperature, valid) for x in (student, teacher))
    classes = _count_classes(student, teacher, valid)
    return jnp.where(valid, _class_gap(ours, theirs, classes), 0)
