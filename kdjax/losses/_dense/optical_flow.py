"""Losses of motion: fields of flow, what they hide, and images moved by them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import apply_mask, map_pair
from kdjax.core.numerics import promote_together, safe_abs
from kdjax.core.types import Array
from kdjax.losses._dense._importance import check_importance, importance_weights

# What differences of gray levels and of their transforms are measured against.
_NOISE = 0.81


_SOFT = 0.1


_LUMA = (0.2989, 0.587, 0.114)


def optical_flow(
    student_flow: Array,
    teacher_flow: Array,
    *,
    importance: Array,
    power: float | Array = 0.4,
    eps: float | Array = 0.01,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """DDFlow: robust difference of two flow fields at occluded pixels.

    `sum_p m_p sum_c (|s_pc - t_pc| + eps)^power / sum_p m_p`. An image whose mask is
    all 0 gives 0. Equal fields of two components give `2 eps^power`, a constant.

    Args:
        student_flow: `[batch, ..., components]`, of the cropped images.
        teacher_flow: the same shape: the teacher's, of the whole images, cropped.
        importance: `m`, `[batch, ...]` without the components, bool or floating and
            not negative. Published: 1 where a pixel's match is lost to the crop, but
            visible to the teacher.
        power: a scalar in (0, 2].
        eps: a scalar above 0.
        axis: the axis of the components; not the first.
        where: bool, broadcastable to the fields; the positions and components that
            take part at all.

    Returns:
        `[batch]`, one value per example, at least float32. The mask is counted image
        by image, so that a value does not depend on the rest of the batch.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than three axes, a
            dtype is wrong, or an option is out of its range.

    Example:
        >>> student, mask = jnp.zeros((1, 2, 2, 2)), jnp.ones((1, 2, 2))
        >>> values = optical_flow(student, student + 1, importance=mask)
        >>> print(f"{values.mean():.4f}")
        2.0080

    Reference:
        Liu, King, Lyu, Xu, "DDFlow: Learning Optical Flow with Unlabeled Data
        Distillation", 2019, arXiv 1902.09145.
    """
    checks.between("power", power, 0.0, 2.0, above=True)
    checks.positive("eps", eps)
    pair = map_pair(student_flow, teacher_flow, axis, where, kind="flow")
    weight = importance_weights(importance, pair, student_flow.shape, axis)
    gap = safe_abs(pair.student - pair.teacher)
    gap = jnp.where((weight > 0)[:, :, None], gap, 0)
    power, eps = (jnp.asarray(x, gap.dtype) for x in (power, eps))
    cost = apply_mask(jnp.power(gap + eps, power), pair.keep)
    count = jnp.sum(weight, 1)
    total = jnp.sum(weight * jnp.sum(cost, -1), 1)
    return total / jnp.where(count == 0, 1, count)


def _check_flow(name: str, flow: Array, pixels: tuple[int, ...] | None = None) -> None:
    checks.floating(name, flow)
    checks.rank(name, flow, 4)
    checks.shape(name, flow, (*(pixels or flow.shape[:3]), 2))
    checks.not_empty(name, flow)


def _targets(flow: Array) -> tuple[Array, Array]:
    """The column and the row that each pixel moves to, `[batch, H, W]` both."""
    column, row = (
        lax.broadcasted_iota(flow.dtype, flow.shape[:3], axis) + flow[..., part]
        for axis, part in ((2, 0), (1, 1))
    )
    return column, row


def _neighbors(position: Array, size: int) -> tuple[Array, Array, Array]:
    """The two pixels on either side along an axis, and the share of the second."""
    edge = size - 1
    position = jnp.where(position < 0, 0, position)
    position = jnp.where(position > edge, edge, position)
    # The last pixel is the second of a pair, so that its slope is that pair's.
    low = jnp.minimum(jnp.floor(lax.stop_gradient(position)), max(size - 2, 0))
    first = low.astype(jnp.int32)
    return first, jnp.minimum(first + 1, edge), position - low


def warp(x: Array, flow: Array) -> Array:
    """Bilinear warp: images, or flow fields, sampled at the ends of a flow field.

    `y[i, j] = x[i + v, j + u]` with `(u, v) = flow[i, j]`. A target outside the image
    is moved to its nearest pixel at the edge, where the gradient to the flow is 0;
    `occlusion_mask` marks these. At a whole number of pixels, where the
    slope jumps, the gradient to the flow is that towards higher columns and rows (at
    the last, towards lower), so both pixels must be numbers there too.

    Args:
        x: `[batch, H, W, channels]`, images, or a field of motion.
        flow: `[batch, H, W, 2]` in pixels: first `u`, to the right (columns), then
            `v`, downwards (rows).

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if a rank is not 4, the shapes do not fit or are empty, or a dtype
            is not floating.

    Example:
        >>> x = jnp.array([0.0, 1.0, 4.0]).reshape(1, 1, 3, 1)
        >>> flow = jnp.array([[0.5, 0.0], [1.0, 0.0], [1.0, 0.0]]).reshape(1, 1, 3, 2)
        >>> print(warp(x, flow).ravel())
        [0.5 4.  4. ]

    Reference:
        Meister, Hur, Roth, "UnFlow: Unsupervised Learning of Optical Flow with a
        Bidirectional Census Loss", 2018, arXiv 1711.07837.
    """
    checks.floating("x", x)
    checks.rank("x", x, 4)
    checks.not_empty("x", x)
    _check_flow("flow", flow, x.shape[:3])
    x, flow = promote_together(x, flow)
    column, row = _targets(flow)
    left, right, across = _neighbors(column, x.shape[2])
    top, bottom, down = _neighbors(row, x.shape[1])
    across, down = across[..., None], down[..., None]
    # A NaN in the flow makes an index of any value.
    pick = jax.vmap(lambda image, i, j: image.at[i, j].get(mode="clip"))

    def between(i: Array) -> Array:
        return (1 - across) * pick(x, i, left) + across * pick(x, i, right)

    return (1 - down) * between(top) + down * between(bottom)


def occlusion_mask(
    forward_flow: Array,
    backward_flow: Array,
    *,
    relative: float | Array = 0.01,
    absolute: float | Array = 0.5,
) -> Array:
    """Occlusion mask: pixels whose forward and backward flow disagree.

    The motion there and back must lead home: a pixel p with `w = forward_flow[p]` and
    `b = backward_flow[p + w]` (bilinear) is occluded where
    `|w + b|^2 > relative (|w|^2 + |b|^2) + absolute`. So is one whose target lies
    outside the image, and one whose motion is NaN. Swap the two fields for the
    second image's mask. A mask has no gradient.

    As the mask of `optical_flow`, DDFlow takes pixels that are occluded for the
    student, which has a crop, and not for the teacher: `student & ~teacher`. For
    `census_loss`, take those not occluded: `~mask`.

    Args:
        forward_flow: `[batch, H, W, 2]`, from the first image to the second, in
            pixels: first to the right, then downwards, as `warp` has it.
        backward_flow: the same shape, from the second image to the first.
        relative: a number of at least 0.
        absolute: a number of at least 0, in squared pixels.

    Returns:
        `[batch, H, W]` bool, true where occluded.

    Raises:
        ValueError: if a rank is not 4, the shapes differ or are empty, a dtype is not
            floating, or an option is negative.

    Example:
        >>> forward = jnp.zeros((1, 1, 4, 2)).at[..., 0].set(1.0)
        >>> print(occlusion_mask(forward, -forward)[0, 0])
        [False False False  True]

    Reference:
        Meister, Hur, Roth, "UnFlow: Unsupervised Learning of Optical Flow with a
        Bidirectional Census Loss", 2018, arXiv 1711.07837, and the released code of
        DDFlow, arXiv 1902.09145, which has no rule of its own for targets outside.
    """
    _check_flow("forward_flow", forward_flow)
    _check_flow("backward_flow", backward_flow, forward_flow.shape[:3])
    for name, value in (("relative", relative), ("absolute", absolute)):
        checks.between(name, value, 0.0)
    forward, backward = promote_together(forward_flow, backward_flow)
    backward = warp(backward, forward)
    relative, absolute = (jnp.asarray(a, forward.dtype) for a in (relative, absolute))
    apart, *lengths = (
        jnp.sum(jnp.square(w), -1) for w in (forward + backward, forward, backward)
    )
    matched = apart <= relative * sum(lengths) + absolute
    for position, size in zip(_targets(forward), forward.shape[2:0:-1], strict=True):
        matched &= (position >= 0) & (position <= size - 1)
    return ~matched


def _ternary(x: Array) -> Array:
    """A difference as nearly -1, 0 or 1."""
    return x * lax.rsqrt(_NOISE + jnp.square(x))


def _census_distance(first: Array, second: Array, patch: int) -> Array:
    """Census distance of gray images, `[batch, H, W]` less the border."""
    border = patch // 2
    batch, height, width = first.shape
    size = (batch, height - 2 * border, width - 2 * border)

    def transform(x: Array, i: Array, j: Array) -> Array:
        middle = x[:, border:-border, border:-border]
        return _ternary(lax.dynamic_slice(x, (jnp.zeros_like(i), i, j), size) - middle)

    # Only the sum is kept: all the differences are as large as `patch^2` images.
    @jax.checkpoint
    def add(total: Array, at: Array) -> tuple[Array, None]:
        gap = jnp.square(transform(first, *at) - transform(second, *at))
        return total + gap / (_SOFT + gap), None

    offsets = np.stack(np.divmod(np.arange(patch**2, dtype=np.int32), patch), 1)
    start = jnp.zeros_like(first, shape=size)
    return lax.scan(add, start, offsets)[0]


def _gray(x: Array) -> Array:
    if x.shape[-1] == 1:
        return x[..., 0]
    luma = jnp.asarray(_LUMA, x.dtype)
    return jnp.einsum("nhwc,c->nhw", x, luma, precision=lax.Precision.HIGHEST)


def _check_images(first: Array, second: Array, patch: int) -> None:
    checks.floating("first", first)
    checks.floating("second", second)
    checks.rank("first", first, 4)
    checks.not_empty("first", first)
    checks.same_shape("second", second, "first", first)
    if first.shape[-1] not in (1, 3):
        got = f"{first.shape[-1]}, shape {first.shape}"
        checks.refuse("first", "1 or 3 channels", got)
    most = min(first.shape[1:3])
    checks.count("patch", patch)
    if patch % 2 == 0 or not 3 <= patch <= most:
        expected = f"an odd number from 3 to {most} (the images' shorter side)"
        checks.refuse("patch", expected, patch)


def census_loss(
    first: Array,
    second: Array,
    *,
    importance: Array,
    patch: int = 7,
    levels: float | Array = 255.0,
    power: float | Array = 0.4,
    eps: float | Array = 0.01,
) -> Array:
    """Census loss: robust difference of the census transforms of two images.

    `sum_p m_p (d_p + eps)^power / sum_p m_p` over the pixels whose patch lies inside
    the image. With `c(a) = a / sqrt(0.81 + a^2)` of the difference `a` of a pixel q of
    the patch to its middle in gray levels, and `g = c(a_first) - c(a_second)`,
    `d = sum_q g^2 / (0.1 + g^2)`. A constant added to either image changes nothing.
    Equal images give `eps^power`, a constant; an image whose mask is all 0 gives 0.

    The photometric term of a teacher of motion: `second` is the second image through
    `warp`, and the published loss adds the term of the images the other way round.

    Args:
        first: `[batch, H, W, channels]`, of 1 channel (gray) or 3 (RGB, of which the
            gray is `0.2989 R + 0.587 G + 0.114 B`).
        second: the same shape.
        importance: `m`, `[batch, H, W]`, bool or floating and not negative.
            Published: 1 where a pixel is not occluded, `~occlusion_mask(...)`.
        patch: the side of the patch, odd, at least 3 and at most H and W.
        levels: gray levels in a unit of the images: 255 for images in [0, 1], 1 for
            images in [0, 255].
        power: a scalar in (0, 2].
        eps: a scalar above 0.

    Returns:
        `[batch]`, one value per image, at least float32. The mask is counted image by
        image, so that a value does not depend on the rest of the batch. The released
        code counts the whole batch's, and gives half of this.

    Raises:
        ValueError: if shapes differ, are empty, or not of rank 4 and 1 or 3 channels,
            a dtype is wrong, an importance is negative, or an option out of its range.

    Example:
        >>> first = jax.random.uniform(jax.random.key(0), (1, 9, 9, 3))
        >>> visible = jnp.ones((1, 9, 9), bool)
        >>> print(f"{census_loss(first, first / 2 + 0.5, importance=visible)[0]:.4f}")
        0.5906
        >>> print(census_loss(first, first, importance=~visible))
        [0.]

    Reference:
        Liu, King, Lyu, Xu, "DDFlow: Learning Optical Flow with Unlabeled Data
        Distillation", 2019, arXiv 1902.09145; the constants are its released code's.
    """
    _check_images(first, second, patch)
    border = patch // 2
    checks.shape("importance", importance, first.shape[:3])
    importance = importance[:, border:-border, border:-border]
    check_importance(importance)
    checks.positive("levels", levels)
    checks.between("power", power, 0.0, 2.0, above=True)
    checks.positive("eps", eps)
    first, second = promote_together(first, second)
    levels, power, eps = (jnp.asarray(x, first.dtype) for x in (levels, power, eps))
    weight = importance.astype(first.dtype)
    counts = weight > 0
    # What no counted patch covers may be anything, NaN too. Behind the barrier, since
    # of a constant mask XLA would reduce the windows while compiling, in half a minute.
    window, more = (1, patch, patch), (patch - 1, patch - 1)
    near = lax.reduce_window(
        lax.optimization_barrier(counts.astype(jnp.int32)),
        *(np.int32(0), lax.max, window, (1, 1, 1), ((0, 0), more, more)),
    )
    first, second = (levels * jnp.where(near > 0, _gray(x), 0) for x in (first, second))
    distance = jnp.where(counts, _census_distance(first, second, patch), 0)
    total = jnp.sum(weight * jnp.power(distance + eps, power), (1, 2))
    count = jnp.sum(weight, (1, 2))
    return total / jnp.where(count == 0, 1, count)
