"""Losses and masks of detection: boxes with a bound, and where to imitate features.

Boxes are `(x0, y0, x1, y1)`. Numbers of boxes are fixed: pad, and say with `where`
which are real.
"""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import map_pair, some, unit_gap
from kdjax.core.numerics import safe_abs, tempered_log_softmax, widen, widen_together
from kdjax.core.reduce import masked_count, masked_mean, masked_sum
from kdjax.core.types import Array
from kdjax.losses.maps import importance_weights


def bounded_regression(
    student_boxes: Array,
    teacher_boxes: Array,
    *,
    targets: Array,
    margin: float | Array = 0.0,
    where: Array | None = None,
) -> Array:
    """Squared error of a box, counted only where the teacher's is not much larger.

    `|s - y|^2` where `|s - y|^2 + margin > |t - y|^2`, else 0: the teacher's error is
    a bound, not a target. The teacher has gradient 0.

    Args:
        student_boxes: `[..., 4]`, regressed boxes or offsets.
        teacher_boxes: the same shape, for the same proposals.
        targets: `y`, the same shape.
        margin: a scalar, not negative, in squared units of the boxes.
        where: bool, broadcastable to the boxes; the coordinates that take part.

    Returns:
        `[...]`, one value per box, at least float32; beside the usual smooth L1.

    Raises:
        ValueError: if shapes differ or are empty, a dtype is not floating, or the
            margin is negative.

    Example:
        >>> targets = jnp.zeros((2, 4))
        >>> teacher = jnp.ones((2, 4))
        >>> student = jnp.array([[2.0, 0, 0, 1], [0.1, 0, 0, 0]])
        >>> print(bounded_regression(student, teacher, targets=targets))
        [5. 0.]

    Reference:
        Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models
        with Knowledge Distillation", NeurIPS 2017 (no arXiv version).
    """
    checks.matching_pair("boxes", student_boxes, teacher_boxes)
    checks.floating("targets", targets)
    checks.same_shape("targets", targets, "student_boxes", student_boxes)
    checks.rank("student_boxes", student_boxes, 1, at_least=True)
    checks.mask("where", where, student_boxes.shape)
    checks.between("margin", margin, 0.0)
    student, teacher, targets = widen_together(student_boxes, teacher_boxes, targets)
    if where is not None:
        keep = jnp.broadcast_to(where, student.shape)
        student, teacher, targets = (
            jnp.where(keep, x, 0) for x in (student, teacher, targets)
        )
    error, bound = (
        masked_sum(jnp.square(x - targets), -1, where) for x in (student, teacher)
    )
    met = error + jnp.asarray(margin, error.dtype) <= bound
    return jnp.where(met, 0, error)


def _check_boxes(boxes: Array, where: Array | None) -> Array:
    checks.floating("boxes", boxes)
    checks.rank("boxes", boxes, 3)
    checks.not_empty("boxes", boxes)
    checks.shape("boxes", boxes, (*boxes.shape[:2], 4))
    if where is None:
        return jnp.ones(boxes.shape[:2], bool)
    checks.mask("where", where, boxes.shape[:2])
    return jnp.broadcast_to(where, boxes.shape[:2])


def _overlaps(anchors: Array, boxes: Array) -> Array:
    """Intersection over union, `[N, G, A]`."""
    anchors, boxes = anchors[None, None], boxes[:, :, None]
    low = jnp.maximum(anchors[..., :2], boxes[..., :2])
    high = jnp.minimum(anchors[..., 2:], boxes[..., 2:])
    shared = jnp.prod(jnp.maximum(high - low, 0), -1)
    areas = [jnp.prod(x[..., 2:] - x[..., :2], -1) for x in (anchors, boxes)]
    union = areas[0] + areas[1] - shared
    return jnp.where(union <= 0, 0, shared / jnp.where(union <= 0, 1, union))


def imitation_mask(
    anchors: Array,
    boxes: Array,
    *,
    threshold: float | Array = 0.5,
    where: Array | None = None,
) -> Array:
    """The positions whose anchors overlap a box nearly as well as any do.

    True at a position if, for some box, one of its anchors has an overlap
    (intersection over union) above `threshold` times the best that any anchor has
    with that box.

    Args:
        anchors: `[..., anchors, 4]`, those of every position.
        boxes: `[N, boxes, 4]` ground truth, in the same coordinates.
        threshold: a scalar in [0, 1]; published 1/2.
        where: `[N, boxes]` bool; which boxes are real.

    Returns:
        `[N, ...]` bool, as `importance` of `masked_imitation`; all False for an image
        without boxes.

    Raises:
        ValueError: if an array is empty, of another rank or not floating, its last
            axis is not 4, or the threshold lies outside [0, 1].

    Example:
        >>> anchors = jnp.array([[[0.0, 0, 2, 2]], [[2.0, 0, 4, 2]], [[4.0, 0, 6, 2]]])
        >>> boxes = jnp.array([[[0.0, 0, 3, 2]]])
        >>> print(imitation_mask(anchors, boxes))
        [[ True False False]]

    Reference:
        Wang, Yuan, Zhang, Feng, "Distilling Object Detectors with Fine-grained
        Feature Imitation", 2019, arXiv 1906.03609.
    """
    checks.floating("anchors", anchors)
    checks.rank("anchors", anchors, 2, at_least=True)
    checks.not_empty("anchors", anchors)
    checks.shape("anchors", anchors, (*anchors.shape[:-1], 4))
    real = _check_boxes(boxes, where)
    checks.between("threshold", threshold, 0.0, 1.0)
    flat, boxes = widen_together(anchors.reshape(-1, 4), boxes)
    overlap = jnp.where(real[:, :, None], _overlaps(flat, boxes), 0)
    best = jnp.max(overlap, 2, keepdims=True)
    near = jnp.any(overlap > jnp.asarray(threshold, best.dtype) * best, 1)
    return jnp.any(near.reshape(real.shape[0], *anchors.shape[:-1]), -1)


def box_weights(
    boxes: Array, *, size: tuple[int, int], where: Array | None = None
) -> Array:
    """How much each cell of a map belongs to an object: one over the box's area.

    A cell is of a box if its indices lie between the floor of the box's start and
    the ceiling of its end; the area is the number of such cells, so that the weights
    of a box alone sum to 1. Where boxes overlap, the smallest counts.

    Args:
        boxes: `[N, boxes, 4]`, in cells of the map.
        size: (height, width) of the map.
        where: `[N, boxes]` bool; which boxes are real.

    Returns:
        `[N, height, width]`, at least float32, as `foreground` of `focal_imitation`.

    Raises:
        ValueError: if the boxes are empty, not `[N, boxes, 4]` or not floating, or a
            size is no whole number above 0.

    Example:
        >>> print(box_weights(jnp.array([[[0.0, 0.0, 2.0, 1.0]]]), size=(2, 3)))
        [[[0.5 0.5 0. ]
          [0.  0.  0. ]]]

    Reference:
        Yang et al., "Focal and Global Knowledge Distillation for Detectors", 2021,
        arXiv 2111.11837.
    """
    real = _check_boxes(boxes, where)
    for length in size:
        checks.count("size", length)
    boxes = widen(boxes)[:, :, :, None]
    inside = []
    for low, length in ((1, size[0]), (0, size[1])):
        cell = jnp.arange(length, dtype=boxes.dtype)[None, None]
        start, stop = jnp.floor(boxes[:, :, low]), jnp.ceil(boxes[:, :, low + 2])
        inside.append((cell >= start) & (cell < stop))
    covered = inside[0][:, :, :, None] & inside[1][:, :, None, :]
    covered = covered & real[:, :, None, None]
    area = jnp.sum(covered, (2, 3), keepdims=True, dtype=jnp.int32)
    share = 1 / jnp.maximum(area, 1).astype(boxes.dtype)
    return jnp.max(jnp.where(covered, share, 0), 1)


def _attention(
    size: Array, temperature: Array, keep: Array | None
) -> tuple[Array, Array]:
    """Softmax of mean absolute values, and over how many of them it is."""
    share = jnp.exp(tempered_log_softmax(size, temperature, 1, keep))
    count = jnp.broadcast_to(masked_count(size, 1, keep), size.shape[:1])[:, None]
    return (share if keep is None else jnp.where(keep, share, 0)), count


def focal_imitation(
    student_features: Array,
    teacher_features: Array,
    *,
    foreground: Array,
    alpha: float | Array = 5e-5,
    beta: float | Array = 2.5e-5,
    gamma: float | Array = 5e-5,
    temperature: float | Array = 0.5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Differences of features where objects are and where they are not, apart (FGD).

    With the attention of positions `A_p = P softmax_p(mean_c |f_pc| / T)` and of
    channels `B_c = C softmax_c(mean_p |f_pc| / T)`:
    `sum_p (alpha m_p + beta n_p) A_p^t sum_c B_c^t (s_pc - t_pc)^2 + gamma (sum_p
    |A_p^s - A_p^t| + sum_c |B_c^s - B_c^t|)`, with `m` the foreground and `n` one over
    the number of the other positions, there, and 0 in the foreground.

    The global part of the method passes features through trained context blocks,
    whose outputs are compared by `hint_l2` (a sum, weight 5e-7).

    Args:
        student_features: `[batch, ..., channels]`, each map of the neck, brought to
            the teacher's channels by an adapter.
        teacher_features: the same shape.
        foreground: `m`, floating `[batch, ...]` without the channels, not negative;
            see `box_weights`.
        alpha: weight of the foreground. These three are proportions of the method;
            the defaults are those of its two-stage detectors.
        beta: weight of the background.
        gamma: weight of the attention.
        temperature: `T`, a scalar above 0.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part.

    Returns:
        `[batch]`, one value per image, at least float32, with weight 1, summed over
        the maps.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is wrong, or the temperature is not above 0.

    Example:
        >>> teacher = jnp.ones((1, 2, 2, 3))
        >>> objects = box_weights(jnp.array([[[0.0, 0.0, 1.0, 2.0]]]), size=(2, 2))
        >>> values = focal_imitation(
        ...     2 * teacher, teacher, foreground=objects, alpha=1.0, beta=0.5
        ... )
        >>> print(f"{values.mean():.4f}")
        4.5000

    Reference:
        Yang et al., "Focal and Global Knowledge Distillation for Detectors", 2021,
        arXiv 2111.11837.
    """
    checks.positive("temperature", temperature)
    pair = map_pair(student_features, teacher_features, axis, where)
    checks.floating("foreground", foreground)
    objects = importance_weights(foreground, pair, student_features.shape, axis)
    positions, channels = some(pair.keep, 2), some(pair.keep, 1)
    rest = objects == 0 if positions is None else (objects == 0) & positions
    count = masked_count(objects, 1, rest)[:, None]
    rest = jnp.where(rest, 1 / count, 0)
    scale = jnp.asarray(temperature, objects.dtype)

    def attentions(x: Array) -> list[tuple[Array, Array]]:
        size = safe_abs(x)
        return [
            _attention(masked_mean(size, 2, pair.keep), scale, positions),
            _attention(masked_mean(size, 1, pair.keep), scale, channels),
        ]

    seen, wanted = attentions(pair.student), attentions(pair.teacher)
    places, lit = (share * times for share, times in wanted)
    alpha, beta, gamma = (jnp.asarray(x, objects.dtype) for x in (alpha, beta, gamma))
    gap = jnp.sum(lit[:, None] * jnp.square(pair.student - pair.teacher), 2)
    value = jnp.sum((alpha * objects + beta * rest) * places * gap, 1)
    for (share, times), (target, _) in zip(seen, wanted, strict=True):
        value += gamma * jnp.sum(times * safe_abs(unit_gap(share, target)), 1)
    return value
