"""The strongest singular vectors of feature maps, and the loss between two layers'."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import as_positions, check_maps
from kdjax.core.numerics import l2_normalize, promote_together, safe_sqrt
from kdjax.core.types import Array

# How far two eigenvalues of a matrix of trace 1 must be apart to count as different.
_GAP = 1e-5
# jaxlib 0.11 computes a batch of eigenvectors on one thread.
_HAS_SERIAL_LAPACK = jax.__version_info__ >= (0, 11)


@jax.custom_jvp
def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices of trace 1.

    The derivative of a vector holds `1 / (a - b)` for every two eigenvalues; here it
    is `(a - b) / ((a - b)^2 + gap^2)`, which is 0 instead of infinite where the two
    are equal, and the same for all practical purposes where they are not.
    """

    def one(x: Array) -> tuple[Array, Array]:
        values, vectors = jnp.linalg.eigh(x, symmetrize_input=False)
        return values, vectors

    # A loop would gather examples that are divided over devices.
    if _HAS_SERIAL_LAPACK or any(jax.typeof(matrix).sharding.spec):
        return one(matrix)
    # On CPU, jaxlib below 0.11 divides a batch over the threads that compute the
    # program. Several batches at a time then wait for each other for ever.
    return lax.platform_dependent(matrix, cpu=lambda x: lax.map(one, x), default=one)


@_eigh.defjvp
def _eigh_jvp(primals, tangents):
    values, vectors = _eigh(primals[0])
    across = jnp.swapaxes(vectors, -1, -2)
    change = _matmul(across, _matmul(tangents[0], vectors))
    apart = values[..., None, :] - values[..., :, None]
    turn = change * apart / (jnp.square(apart) + _GAP**2)
    # `jnp.diagonal` is a gather, whose gradient has no rule for divided examples.
    row, column = (
        lax.broadcasted_iota(jnp.int32, change.shape, change.ndim - i) for i in (2, 1)
    )
    slope = jnp.sum(jnp.where(row == column, change, 0), -1)
    return (values, vectors), (slope, _matmul(vectors, turn))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _singular(x: Array, components: int) -> tuple[Array, Array]:
    """The strongest `components` right singular vectors, and the squared values.

    `[batch, channels, k]` and `[batch, k]`, from the strongest; the largest entry of
    each vector is positive.
    """
    x = x / _scale(x)
    # Right singular vectors are eigenvectors of the channels' Gram matrix, which is
    # smaller than the map.
    gram = jnp.einsum("npc,npd->ncd", x, x, precision=lax.Precision.HIGHEST)
    trace = jnp.trace(gram, axis1=1, axis2=2)[:, None, None]
    values, vectors = _eigh(gram / jnp.where(trace == 0, 1, trace))
    values, vectors = values[:, ::-1][:, :components], vectors[..., ::-1]
    vectors = vectors[..., :components]
    # An eigenvector has no sign of its own; without a choice, values would jump.
    largest = jnp.argmax(jnp.abs(vectors), 1, keepdims=True)
    sign = jnp.sign(jnp.take_along_axis(vectors, largest, 1))
    return vectors * lax.stop_gradient(sign), values


def _scale(x: Array) -> Array:
    """The largest entry of each map, so that tiny maps keep their digits."""
    largest = jnp.max(jnp.abs(x), (1, 2), keepdims=True)
    return lax.stop_gradient(jnp.where(largest == 0, 1, largest))


def _aligned(student: Array, teacher: Array) -> Array:
    """For each teacher vector the student's nearest one, turned the same way."""
    cosine = _matmul(jnp.swapaxes(student, 1, 2), teacher)
    nearest = jnp.argmax(jnp.abs(cosine), 1, keepdims=True)
    candidates = lax.broadcasted_iota(jnp.int32, cosine.shape, 1)
    pick = jnp.where(candidates == nearest.astype(jnp.int32), jnp.sign(cosine), 0)
    return _matmul(student, lax.stop_gradient(pick))


def _kernel(start: Array, end: Array) -> Array:
    """`[batch, C, D, k]` closeness of the entries of the vectors at the two ends."""
    return jnp.exp(-jnp.square(start[:, :, None] - end[:, None]) / 8)


def _vectors(
    kind: str, student: Array, teacher: Array, components: int, axis: int
) -> tuple[Array, Array]:
    check_maps((f"student_{kind}", f"teacher_{kind}"), student, teacher, axis, None)
    checks.count("components", components, 1, student.shape[axis])
    axis %= student.ndim
    student, teacher = (
        as_positions(x, axis) for x in promote_together(student, teacher)
    )
    target, values = _singular(teacher, components)
    size = l2_normalize(safe_sqrt(values))[:, None, :]
    # Three more candidates: vectors of close singular values change their order.
    ours_all, _ = _singular(student, components + 3)
    return _aligned(ours_all, target) * size, target * size


def singular_vectors(
    student_features: Array,
    teacher_features: Array,
    *,
    components: int = 1,
    axis: int = -1,
) -> tuple[Array, Array]:
    """Strongest right singular vectors of two maps, with the student's aligned.

    Of each map (positions by channels) the vectors over the channels, each times the
    teacher's singular value in units of the norm of all that are taken: so one alone
    has length 1, and 0 where the teacher's map is 0. A singular vector has no sign of
    its own: the largest entry of the teacher's is positive. Of the student three more
    are computed; for each of the teacher's the one of largest absolute cosine is
    taken, with its sign. The derivatives, infinite where two singular values are
    equal, are cut off and 0 there.

    Squeezes a map to the vector that `mhgd` compares.

    Args:
        student_features: `[batch, ..., channels]` map.
        teacher_features: the same shape.
        components: how many vectors, at most the number of channels.
        axis: the axis of the channels; not the first.

    Returns:
        The student's and the teacher's, `[batch, channels, components]`, at least
        float32.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, a dtype
            is not floating, or `components` is out of range.

    Example:
        >>> maps = jnp.array([[[3.0, 4.0], [6.0, 8.0]]])
        >>> student, teacher = singular_vectors(-maps, maps)
        >>> print(student.shape, f"{student[0, 0, 0]:.4f} {teacher[0, 1, 0]:.4f}")
        (1, 2, 1) 0.6000 0.8000

    Reference:
        Lee, Kim, Song, 2018, arXiv 1807.06819; Lee, Song, 2019, arXiv 1907.02226.
    """
    return _vectors("features", student_features, teacher_features, components, axis)


def kdsvd(
    student_features: Array,
    teacher_features: Array,
    *,
    student_end: Array,
    teacher_end: Array,
    components: int = 1,
    axis: int = -1,
) -> Array:
    """KD-SVD: distance between relations of two layers' singular vectors.

    `sum_ijk (K^s_ijk - K^t_ijk)^2` with `K_ijk = exp(-(u_ik - v_jk)^2 / 8)`: `u` and
    `v` are the first right singular vectors of the map at the beginning and at the end
    (positions by channels), each times the teacher's singular value in units of the
    norm of all that are used. Of the student, three more vectors than of the teacher
    are computed; for each of the teacher's the nearest is taken, with its sign.

    Singular vectors have no sign of their own: here the largest entry of each of the
    teacher's is positive, so that the value is the same on every machine. Their
    derivatives are infinite where two singular values are equal; these are cut off,
    and are 0 there.

    There is no `where`: vectors of other channels or positions are other vectors.

    Args:
        student_features: `[batch, ..., C]`, the map at the beginning of a stage.
        teacher_features: the same shape.
        student_end: `[batch, ..., D]`, the map at the end of that stage; its
            positions are free.
        teacher_end: the same shape.
        components: how many vectors of the teacher's to compare; at most C and D.
        axis: the axis of the channels; not the first.

    Returns:
        `[batch]`, one value per example, at least float32. The published loss adds
        all pairs of consecutive taps, with weight 1 in RepDistiller.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is not floating, or `components` is out of range.

    Example:
        >>> start, end = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 5))
        >>> ends = {"student_end": end, "teacher_end": -end}
        >>> values = jax.jit(kdsvd)(start, 2 * start, **ends)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0000

    Reference:
        Lee, Kim, Song, "Self-supervised Knowledge Distillation Using Singular Value
        Decomposition", 2018, arXiv 1807.06819.
    """
    if student_end.shape[0] != student_features.shape[0]:
        expected = f"{student_features.shape[0]} examples"
        checks.refuse("student_end", expected, student_end.shape[0])
    starts = _vectors("features", student_features, teacher_features, components, axis)
    ends = _vectors("end", student_end, teacher_end, components, axis)
    gap = [_kernel(start, end) for start, end in zip(starts, ends, strict=True)]
    return jnp.sum(jnp.square(gap[0] - gap[1]), (1, 2, 3))
