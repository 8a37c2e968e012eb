"""Losses between what happens from one layer to a later one of each network.

Both ends of a stage are given: `student_features` and `teacher_features` are the map
at its beginning, `student_end` and `teacher_end` the map at its end.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import (
    adaptive_mean,
    any_valid,
    apply_mask,
    as_positions,
    channel_axis,
    check_maps,
    keep_positions,
)
from kdjax.core.numerics import promote_together, safe_sqrt
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

FLOW_VARIANTS = ("mean", "norm", "sum")


def _end(name: str, end: Array, start_name: str, start: Array, axis: int) -> None:
    """Refuse an end that does not lie over the same examples and positions."""
    checks.floating(name, end)
    checks.rank(name, end, start.ndim)
    checks.not_empty(name, end)
    channels = channel_axis(axis, start_name, start)
    expected = list(start.shape)
    expected[channels] = end.shape[channels]
    checks.shape(name, end, tuple(expected))


def _fsp(start: Array, end: Array, axis: int, where: Array | None) -> Array:
    keep = keep_positions(where, start.shape, axis % start.ndim)
    start, end = (as_positions(x, axis) for x in promote_together(start, end))
    start, end = apply_mask(start, keep), apply_mask(end, _column(any_valid(keep, -1)))
    total = jnp.einsum("npc,npd->ncd", start, end, precision=lax.Precision.HIGHEST)
    if keep is None:
        return total / start.shape[1]
    count = jnp.maximum(jnp.sum(keep, 1, dtype=jnp.int32), 1)
    return total / count.astype(total.dtype)[:, :, None]


def _column(keep: Array | None) -> Array | None:
    return None if keep is None else keep[..., None]


def fsp_matrix(
    start: Array, end: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """FSP matrix: inner products of the channels at both ends of a stage.

    `G_ij = 1/P sum_p start_pi end_pj`, for every example.

    Args:
        start: `[batch, ..., C]`, the map at the beginning of a stage.
        end: `[batch, ..., D]`, the map at its end, with the same positions.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to `start`; the positions and channels of the
            beginning that take part.

    Returns:
        `[batch, C, D]`, at least float32.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes,
            or a dtype is not floating.

    Example:
        >>> start = jnp.array([[[1.0, 0.0], [0.0, 2.0]]])
        >>> print(fsp_matrix(start, jnp.array([[[4.0], [1.0]]])).ravel())
        [2. 1.]

    Reference:
        Yim et al., "A Gift from Knowledge Distillation", CVPR 2017.
    """
    checks.floating("start", start)
    checks.rank("start", start, 3, at_least=True)
    checks.not_empty("start", start)
    _end("end", end, "start", start, axis)
    checks.mask("where", where, start.shape)
    return _fsp(start, end, axis, where)


def fsp(
    student_features: Array,
    teacher_features: Array,
    *,
    student_end: Array,
    teacher_end: Array,
    variant: str = "mean",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Flow of the solution procedure (FSP): distance between two FSP matrices.

    `"mean"`: `1/(C D) sum_ij (G^s_ij - G^t_ij)^2`. `"sum"`: the squared Frobenius
    norm, as in the paper. `"norm"`: the Frobenius norm itself, not squared. `G` is
    `fsp_matrix`. The default is `"mean"`: the known weight, 50, was tuned with it
    (RepDistiller), and it does not grow with the widths. One permutation of the
    positions at both ends of a network changes nothing, nor does moving a factor from
    one end to the other.

    Args:
        student_features: `[batch, ..., C]`, the beginning of a stage, with as many
            channels as the teacher's (or brought there by an adapter).
        teacher_features: the same shape.
        student_end: `[batch, ..., D]`, the end of that stage, with the positions of
            the beginning: pool the larger of the two first, or use `dense_fsp`.
        teacher_end: the same shape.
        variant: `"mean"`, `"sum"` or `"norm"`.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the beginning; its positions and channels that
            take part. A position left out there is left out at the end.

    Returns:
        `[batch]`, one value per example in the fourth power of the units of the
        features, at least float32. The published loss adds the stages, and is
        minimized alone first, without the layers behind the last tap.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is not floating, or the variant is unknown.

    Example:
        >>> start, end = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 4, 4, 5))
        >>> print(fsp(start, start, student_end=end, teacher_end=3 * end))
        [4. 4.]
        >>> ends = {"student_end": end, "teacher_end": 3 * end}
        >>> print(f"{fsp(start, start, **ends, variant='norm')[0]:.4f}")
        7.7460

    Reference:
        Yim et al., "A Gift from Knowledge Distillation", CVPR 2017.
    """
    checks.one_of("variant", variant, FLOW_VARIANTS)
    _check_ends(
        student_features, teacher_features, student_end, teacher_end, axis, where
    )
    axis %= student_features.ndim
    gap = _fsp(student_features, student_end, axis, where)
    teacher = _fsp(teacher_features, teacher_end, axis, where)
    gap, teacher = promote_together(gap, teacher)
    if variant == "norm":
        # A norm has its full gradient at any distance but 0, so that of networks that
        # agree would follow the rounding of the two sums.
        gap = _beyond_rounding(gap, teacher, student_features, student_end, axis)
        teacher = jnp.zeros_like(gap)
    error = jnp.square(gap - teacher)
    rows = any_valid(keep_positions(where, student_features.shape, axis), 1)
    reduce = masked_mean if variant == "mean" else masked_sum
    value = reduce(error, (1, 2), _column(rows))
    return safe_sqrt(value) if variant == "norm" else value


def _beyond_rounding(
    student: Array, teacher: Array, start: Array, end: Array, axis: int
) -> Array:
    """`student - teacher` of FSP matrices, 0 within the rounding of their sums."""
    sides = (as_positions(x, axis) for x in promote_together(start, end))
    # Norms bound the sum of the absolute products; what masked entries hold may be
    # NaN, which is no bound and leaves the difference as it is.
    first, second = (jnp.sqrt(jnp.mean(jnp.square(x), 1)) for x in sides)
    bound = lax.stop_gradient(first[:, :, None] * second[:, None, :])
    gap = student - teacher
    rounding = 8 * jnp.finfo(gap.dtype).eps * bound.astype(gap.dtype)
    return jnp.where(jnp.abs(gap) <= rounding, 0, gap)


def _check_ends(student, teacher, student_end, teacher_end, axis, where) -> None:
    names = ("student_features", "teacher_features")
    check_maps(names, student, teacher, axis, where)
    _end("student_end", student_end, names[0], student, axis)
    _end("teacher_end", teacher_end, names[1], teacher, axis)
    checks.same_shape("teacher_end", teacher_end, "student_end", student_end)


def _smaller(start: Array, end: Array, channels: int) -> tuple[Array, Array]:
    """Both maps at the smaller of their sizes along each spatial axis."""
    axes = tuple(i for i in range(1, start.ndim) if i != channels)
    sizes = tuple(min(start.shape[i], end.shape[i]) for i in axes)
    return adaptive_mean(start, sizes, axes), adaptive_mean(end, sizes, axes)


def dense_fsp(
    student_features: Sequence[Array],
    teacher_features: Sequence[Array],
    *,
    upto: int | None = None,
    variant: str = "mean",
    axis: int = -1,
) -> Array:
    """Dense FSP: `fsp` from every tap to every later one, averaged.

    With the taps 0 to M, from shallow to deep: the mean over all `0 <= i < j <= m` of
    the loss between `G_ij^s` and `G_ij^t`. Of two maps the larger is averaged to the
    size of the smaller. The published procedure sweeps `m = upto` from 1 to M, each
    time training the layers up to tap m alone, before the task. The paper was not at
    hand: the set of pairs and their equal weights are our reading of its abstract.

    There is no `where`: the taps differ in size, and no mask fits all of them.

    Args:
        student_features: M + 1 taps `[batch, ..., channels]`; at least two.
        teacher_features: as many, each of the shape of the student's.
        upto: `m`, the deepest tap of any pair; the last by default.
        variant: as in `fsp`.
        axis: the axis of the channels; not the first.

    Returns:
        `[batch]`, one value per example, at least float32.

    Raises:
        ValueError: if there are fewer than two taps or not as many of each network,
            `upto` is not the number of a tap after the first, or as in `fsp`.

    Example:
        >>> taps = [jnp.ones((2, size, size, 3)) for size in (8, 4, 2)]
        >>> print(dense_fsp(taps, [2 * tap for tap in taps]))
        [9. 9.]

    Reference:
        Bae et al., "Densely Distilled Flow-Based Knowledge Transfer in Teacher-Student
        Framework for Image Classification", 2020, doi 10.1109/TIP.2020.2984362.
    """
    for name, taps in (
        ("student_features", student_features),
        ("teacher_features", teacher_features),
    ):
        shape = getattr(taps, "shape", None)
        if shape is not None:
            checks.refuse(name, "a sequence of taps", f"one of shape {shape}")
    last = len(student_features) - 1
    if last < 1 or len(teacher_features) != last + 1:
        expected = "as many taps as student_features, at least 2"
        got = f"{len(teacher_features)} and {last + 1}"
        checks.refuse("teacher_features", expected, got)
    upto = last if upto is None else upto
    checks.count("upto", upto, most=last)
    checks.floating("student_features", student_features[0])
    channels = channel_axis(axis, "student_features", student_features[0])
    values = []
    for j in range(1, upto + 1):
        for i in range(j):
            student = _smaller(student_features[i], student_features[j], channels)
            teacher = _smaller(teacher_features[i], teacher_features[j], channels)
            ends = {"student_end": student[1], "teacher_end": teacher[1]}
            value = fsp(student[0], teacher[0], **ends, variant=variant, axis=channels)
            values.append(value)
    values = promote_together(*values)
    return sum(values[1:], values[0]) / len(values)
