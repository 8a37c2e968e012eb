"""Masks and weights of positions, from bounding boxes."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together
from kdjax.core.types import Array


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
    """Imitation mask (FGFI): positions whose anchors overlap a box.

    True at a position if, for some box, one of its anchors has an overlap
    (intersection over union) above `threshold` times the best that any anchor has
    with that box.

    Args:
        anchors: `[..., anchors, 4]`, those of every position.
        boxes: `[N, boxes, 4]` ground truth, in the same coordinates.
        threshold: a scalar in [0, 1]; published 1/2.
        where: `[N, boxes]` bool; which boxes are real.

    Returns:
        `[N, ...]` bool, as `importance` of `fine_grained_imitation`; all False for an
        image without boxes.

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
    flat, boxes = promote_together(anchors.reshape(-1, 4), boxes)
    overlap = jnp.where(real[:, :, None], _overlaps(flat, boxes), 0)
    best = jnp.max(overlap, 2, keepdims=True)
    near = jnp.any(overlap > jnp.asarray(threshold, best.dtype) * best, 1)
    return jnp.any(near.reshape(real.shape[0], *anchors.shape[:-1]), -1)


def box_weights(
    boxes: Array, *, size: tuple[int, int], where: Array | None = None
) -> Array:
    """FGD weights: for each cell, one over the area of its object's box.

    A cell is of a box if its indices lie between the floor of the box's start and
    the ceiling of its end; the area is the number of such cells, so that the weights
    of a box alone sum to 1. Where boxes overlap, the smallest counts.

    Args:
        boxes: `[N, boxes, 4]`, in cells of the map.
        size: (height, width) of the map.
        where: `[N, boxes]` bool; which boxes are real.

    Returns:
        `[N, height, width]`, at least float32, as `foreground` of `fgd`.

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
    boxes = promote(boxes)[:, :, :, None]
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
