"""Maximum mean discrepancy (MMD) between two batches."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pair_mask
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch

KERNELS = ("gaussian", "linear", "polynomial")
_EPS = 1e-12


def _inner(student: Array, teacher: Array) -> tuple[Array, Array, Array]:
    """Products among the student's rows, among the teacher's, and across."""
    return gram(student), gram(teacher), gram(student, teacher)


def _gaussian(student: Array, teacher: Array, valid: Array) -> tuple[Array, ...]:
    """Gaussian kernel values among the student's rows, the teacher's, and across."""
    # A shift changes no distance: the gradient through it is zero by itself.
    center = masked_mean(student + teacher, 0, valid[:, None]) / 2
    student, teacher = (
        jnp.where(valid[:, None], x - lax.stop_gradient(center)[None, :], 0)
        for x in (student, teacher)
    )
    ours, theirs = (jnp.sum(jnp.square(x), axis=1) for x in (student, teacher))
    # Rows at their center: the mean over all pairs is twice that of the squares.
    width = masked_mean(ours + theirs, where=valid)
    scale = -1 / (2 * jnp.where(width < _EPS, _EPS, width))
    sizes = (ours, ours), (theirs, theirs), (ours, theirs)
    squared = (
        a[:, None] + b[None, :] - 2 * inner
        for (a, b), inner in zip(sizes, _inner(student, teacher), strict=True)
    )
    return tuple(jnp.exp(scale * jnp.where(x <= 0, 0, x)) for x in squared)


@over_global_batch()
def mmd(
    student_features: Array,
    teacher_features: Array,
    *,
    kernel: str = "gaussian",
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Maximum mean discrepancy (MMD): squared, between two batches of features.

    For the example i, `mean_j k(t_i, t_j) + mean_j k(s_i, s_j) - mean_j k(s_i, t_j) -
    mean_j k(t_i, s_j)`: the share that it has of
    `mean k(t, t') + mean k(s, s') - 2 mean k(s, t)`, which is never negative, as a
    share may be. Which student belongs to which teacher does not matter to the mean.
    The kernels: `"linear"` `<a, b>` (then it is the squared distance of the two means),
    `"polynomial"` `<a, b>^2`, `"gaussian"` `exp(-|a - b|^2 / (2 v))` with `v` the mean
    squared distance of all rows, of both networks. Turning student and teacher alike
    changes nothing; nor do a shift or a scale of both, for `"gaussian"`.

    Tap pooled features behind an adapter of one width; of several teachers pair them
    with `compact_bilinear`.

    Args:
        student_features: `[N, D]` features of the global batch.
        teacher_features: the same shape.
        kernel: `"gaussian"`, `"linear"` or `"polynomial"`.
        axis: the axis of the features.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. The loss is its plain mean
        (over the examples that take part). Its weight is not in our references.

    Raises:
        ValueError: if shapes differ, are empty or not of rank 2, a dtype is not
            floating, or the kernel is unknown.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> values = mmd(student, student + 1, kernel="linear")
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 2.0000

    Reference:
        Zhang, Peng, "Better and Faster: Knowledge Transfer from Multiple
        Self-supervised Learning Tasks via Graph Distillation for Video
        Classification", IJCAI 2018; Gretton et al., "A Kernel Two-Sample Test", 2012
        (the discrepancy).
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.one_of("kernel", kernel, KERNELS)
    checks.matching_pair("features", student_features, teacher_features)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    if kernel == "gaussian":
        ours, theirs, other = _gaussian(student, teacher, valid)
    else:
        ours, theirs, other = _inner(student, teacher)
        if kernel == "polynomial":
            ours, theirs, other = map(jnp.square, (ours, theirs, other))
    # Mean over the rows of one network less that over the other's.
    return masked_mean(ours + theirs - other - other.T, 1, pair_mask(valid))
