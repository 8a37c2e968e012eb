"""Instance relationship graph (IRG): vertices, edges and feature transformations.

A value depends on all other examples, so the kernels mean the global batch. Flatten or
pool a map to `[N, D]` first. The vertices alone are `logit_mse`.
"""

import math

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import (
    embeddings,
    pair_mask,
    require_examples,
    squared_distances,
)
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch
from kdjax.losses._logits.distance import logit_mse

# Squares at or below this are those of one point; their ratios mean nothing.
_EPS = 1e-12


def _relative(squares: Array, constant_max: bool) -> Array:
    """Squares in units of the largest."""
    top = jnp.max(squares)
    top = jnp.where(top < _EPS, _EPS, top)
    return squares / (lax.stop_gradient(top) if constant_max else top)


@over_global_batch()
def irg_edges(
    student_features: Array,
    teacher_features: Array,
    *,
    constant_max: bool = False,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """IRG edges: squared difference of relative squared distances.

    For the anchor i: `1/N sum_j (E_ij^t - E_ij^s)^2` with
    `E_ij = |f_i - f_j|^2 / max`, the edges of an instance relationship graph. Turning,
    shifting or scaling student or teacher changes nothing. A largest square below 1e-12
    is raised to it: a batch collapsed to a point has no edges, and no gradient.

    Tap embeddings, and stage maps pooled or flattened. In the published sum
    (`irg`) it weighs 5 (KD-Zoo), as the mean over the tapped layers.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        constant_max: whether the largest distance counts as a constant in the
            gradient. The authors' own code has it so, and sends the gradient of each
            pair to one of its two rows alone; the default is the true gradient.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        mean over all `N^2` entries, is its plain mean (over the examples that take
        part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows
            differs or is below 3, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = irg_edges(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.1344

    Reference:
        Liu et al., "Knowledge Distillation via Instance Relationship Graph", CVPR
        2019, pages 7096-7104 (no arXiv version).
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.boolean("constant_max", constant_max)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    why = "the distance of 2 over the largest is 1"
    require_examples("student_features", valid.size, 3, why)
    gap = _relative(squared_distances(teacher, valid), constant_max) - _relative(
        squared_distances(student, valid), constant_max
    )
    return masked_mean(jnp.square(gap), axis=1, where=pair_mask(valid))


@over_global_batch("student_later", "teacher_later")
def irg_transformation(
    student_features: Array,
    teacher_features: Array,
    *,
    student_later: Array,
    teacher_later: Array,
    constant_max: bool = False,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """IRG transformation: difference of each example's step between two layers.

    `(t_i^t - t_i^s)^2` with `t_i = |f_i - g_i|^2 / max_j |f_j - g_j|^2` for the
    features `f` of the earlier and `g` of the later layer. Scaling a network's
    features changes nothing, nor does turning or shifting both its layers alike. A
    largest square below 1e-12 is raised to it.

    Tap the ends of two stages, pooled to vectors of one width per network (KD-Zoo
    averages pairs of channels where the widths differ by a factor of 2). In the
    published sum (`irg`) it weighs 5 (KD-Zoo).

    Args:
        student_features: `[N, D]` features of the student's earlier layer.
        teacher_features: `[N, E]`; the widths may differ.
        student_later: `[N, D]` features of the student's later layer.
        teacher_later: `[N, E]`.
        constant_max: as in `irg_edges`.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The published loss is its
        plain mean (over the examples that take part). The largest is taken over the
        global batch.

    Raises:
        ValueError: if an array is empty or not of rank 2, shapes do not fit, there
            are fewer than 2 rows, or a dtype is not floating.

    Example:
        >>> early = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> late = jnp.array([[1.0, 0], [1, 2], [0, 2], [1, 1]])
        >>> values = irg_transformation(
        ...     early, late, student_later=late, teacher_later=2 * late
        ... )
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.1663

    Reference:
        Liu et al., "Knowledge Distillation via Instance Relationship Graph", CVPR
        2019, pages 7096-7104 (no arXiv version).
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.boolean("constant_max", constant_max)
    student, teacher, valid = embeddings(
        student_features, teacher_features, where=where
    )
    why = "one step over the largest is 1"
    require_examples("student_features", valid.size, 2, why)
    names = ("student_later", "teacher_later")
    later, later_teacher, _ = embeddings(
        student_later, teacher_later, -1, where, names, valid.size
    )
    checks.same_shape(names[0], later, "student_features", student)
    checks.same_shape(names[1], later_teacher, "teacher_features", teacher)
    student, later, teacher, later_teacher = promote_together(
        student, later, teacher, later_teacher
    )
    moved, target = (
        _relative(jnp.sum(jnp.square(a - b), axis=1), constant_max)
        for a, b in ((student, later), (teacher, later_teacher))
    )
    return jnp.square(target - moved)


@over_global_batch("student_later", "teacher_later", "student_logits", "teacher_logits")
def irg(
    student_features: Array,
    teacher_features: Array,
    *,
    student_later: Array,
    teacher_later: Array,
    student_logits: Array,
    teacher_logits: Array,
    alpha: float | Array = 0.1,
    beta: float | Array = 5.0,
    gamma: float | Array = 5.0,
    constant_max: bool = False,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Instance relationship graph (IRG): vertices, edges and transformation together.

    `alpha logit_mse + beta (edges earlier + edges later) / 2 + gamma transformation`,
    whose proportions belong to the method: 0.1, 5 and 5 are KD-Zoo's. The terms stand
    alone as `logit_mse`, `irg_edges` and `irg_transformation`: combine these
    for more layers.

    Tap the ends of two stages, pooled to vectors of one width per network, and the
    logits.

    Args:
        student_features: `[N, D]` features of the student's earlier layer.
        teacher_features: `[N, E]`; the widths may differ.
        student_later: `[N, D]` features of the student's later layer.
        teacher_later: `[N, E]`.
        student_logits: `[N, classes]`.
        teacher_logits: the same shape.
        alpha: weight of the vertices, which are the logits.
        beta: weight of the edges.
        gamma: weight of the transformation.
        constant_max: as in `irg_edges`.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32, whose plain mean is the
        loss (over the examples that take part).

    Raises:
        ValueError: if an array is empty or not of rank 2, shapes do not fit, there
            are fewer than 3 rows, a dtype is not floating, or a weight is not a single
            finite number.

    Example:
        >>> early = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> late = jnp.array([[1.0, 0], [1, 2], [0, 2], [1, 1]])
        >>> values = irg(
        ...     early,
        ...     late,
        ...     student_later=late,
        ...     teacher_later=2 * late,
        ...     student_logits=early,
        ...     teacher_logits=late,
        ... )
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 1.5563

    Reference:
        Liu et al., "Knowledge Distillation via Instance Relationship Graph", CVPR
        2019, pages 7096-7104 (no arXiv version).
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.boolean("constant_max", constant_max)
    student, teacher, valid = embeddings(
        student_features, teacher_features, where=where
    )
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        checks.between(name, weight, -math.inf)
    names = ("student_logits", "teacher_logits")
    logits = embeddings(student_logits, teacher_logits, -1, where, names, valid.size)
    moved = irg_transformation(
        student,
        teacher,
        student_later=student_later,
        teacher_later=teacher_later,
        constant_max=constant_max,
        where=valid,
    )
    edges = irg_edges(student, teacher, constant_max=constant_max, where=valid)
    edges_later = irg_edges(
        student_later, teacher_later, constant_max=constant_max, where=valid
    )
    terms = (logit_mse(*logits[:2]), (edges + edges_later) / 2, moved)
    terms = promote_together(*terms)
    weights = (jnp.asarray(x, terms[0].dtype) for x in (alpha, beta, gamma))
    vertices, edges, moved = (w * x for w, x in zip(weights, terms, strict=True))
    return vertices + edges + moved
