"""Numbers in few levels, with gradients that pass the rounding by.

The loss of a quantized student is any other, of its outputs at quantized weights or
activations; the gradient reaches the full-precision copy.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, round_straight_through
from kdjax.core.types import Array

# A bucket whose values lie closer is not stretched.
_FLAT = 1e-10


@jax.custom_jvp
def _instead(x: Array, value: Array) -> Array:
    """`value`, with the gradient of `x`."""
    return value


_instead.defjvp(lambda primals, tangents: (primals[1], tangents[0]))


@jax.custom_jvp
def _ratio(x: Array, step: Array) -> Array:
    """`x / step`, with slopes that do not square a small step."""
    return x / step


@_ratio.defjvp
def _ratio_tangent(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, step), (dx, dstep) = primals, tangents
    ratio = x / step
    return ratio, (dx - ratio * dstep) / step


def _clip(x: Array, low: Array, high: Array) -> Array:
    """Clipped, with slope 1 at the bounds themselves."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _check_values(x: Array, axis: int | None = None) -> tuple[int, ...]:
    """The axes that share a range: all, or all but that of the channels."""
    checks.floating("x", x)
    checks.not_empty("x", x)
    if axis is None:
        return tuple(range(x.ndim))
    axis = checks.axis(axis, "x", x)
    return tuple(i for i in range(x.ndim) if i != axis)


def calibrated_range(
    x: Array, *, axis: int | None = None, coverage: float = 1.0
) -> tuple[Array, Array]:
    """The range that values take, 0 included, for `affine_quantize`.

    From the quantile `(1 - coverage) / 2` to `(1 + coverage) / 2`. Of several batches
    take the mean, or `optax.incremental_update` with the ranges so far.

    Args:
        x: weights or activations, any shape.
        axis: the axis of the channels, each of which has a range of its own; None for
            one range.
        coverage: the share of the values within, in (0, 1]; 1 is least to greatest.

    Returns:
        (low, high), at least float32, of the rank of `x` with length 1 on the axes
        that share a range; `low <= 0 <= high`.

    Raises:
        ValueError: if `x` is empty or not floating, the axis does not exist, or the
            coverage lies outside (0, 1].

    Example:
        >>> low, high = calibrated_range(jnp.array([[-1.0, 2.0], [3.0, 4.0]]), axis=1)
        >>> print(low, high)
        [[-1.  0.]] [[3. 4.]]

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", 2017, arXiv 1712.05877.
    """
    shared = _check_values(x, axis)
    checks.between("coverage", coverage, 0.0, 1.0, above=True)
    x = promote(x)
    edge = (1 - jnp.asarray(coverage, x.dtype)) / 2
    # Of a scalar too: `jnp.quantile` takes no empty tuple of axes.
    at, shared = (x, shared) if shared else (x[None], (0,))
    low, high = (jnp.quantile(at, q, shared, keepdims=True) for q in (edge, 1 - edge))
    if at is not x:
        low, high = low[0], high[0]
    return jnp.minimum(low, 0), jnp.maximum(high, 0)


def affine_quantize(
    x: Array,
    *,
    low: float | Array,
    high: float | Array,
    levels: int = 256,
    symmetric: bool = False,
) -> Array:
    """Fake quantization of `x` to integers with a scale and a zero point.

    `s (clip(round(x / s) + z, 0, levels - 1) - z)` with `s = (high - low) / (levels -
    1)` and `z = round(-low / s)`, halves to even, so that 0 stays exactly 0. With
    `symmetric`, `z = 0` and the integers go from `-n` to `n`, `n = (levels - 1) // 2`,
    `s = max(-low, high) / n`.

    Values beyond `[-z s, (levels - 1 - z) s]` are clipped to it: the range shifted by
    less than a step, so that 0 is a level. The gradient passes both roundings straight
    through: to `x` it is 1 within that and 0 beyond; to `low` and `high`, where ranges
    are learned, that of the clipped end beyond, and of the rounding error (as in LSQ)
    within.

    Args:
        x: weights or activations, any shape.
        low: not above 0, a scalar or broadcastable to `x` (a range for each channel);
            see `calibrated_range`.
        high: not below 0, likewise. A range of nothing gives 0.
        levels: `2^b` for b bits; at least 2, or 3 if symmetric.
        symmetric: whether the zero point is 0, usual for weights.

    Returns:
        The shape of `x`, at least float32, with at most so many different values (in
        a channel).

    Raises:
        ValueError: if `x`, `low` or `high` is not floating, the range does not hold 0
            or does not broadcast to `x`, or the levels are too few or no whole number.

    Example:
        >>> x = jnp.array([-0.7, 0.0, 0.3, 0.8, 5.0])
        >>> print(affine_quantize(x, low=-1.0, high=2.0, levels=4))
        [-1.  0.  0.  1.  2.]

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", 2017, arXiv 1712.05877; learned ranges:
        Esser et al., "Learned Step Size Quantization", 2019, arXiv 1902.08153.
    """
    checks.floating("x", x)
    checks.boolean("symmetric", symmetric)
    checks.count("levels", levels, 3 if symmetric else 2)
    x = promote(x)
    ends = []
    for name, end, sign in (("low", low, -1), ("high", high, 1)):
        if not hasattr(end, "dtype"):
            checks.number(name, end)
        end = jnp.asarray(end)
        checks.floating(name, end)
        checks.broadcasts(name, end, x.shape)
        checks.holds(
            *(name, lambda np, e, sign=sign: (sign * e >= 0) & (sign * e < np.inf)),
            *(f"finite numbers not {'above' if sign < 0 else 'below'} 0", end),
        )
        ends.append(lax.expand_dims(end, range(x.ndim - end.ndim)).astype(x.dtype))
    low, high = ends
    if symmetric:
        most = (levels - 1) // 2
        least, step = -most, jnp.maximum(-low, high) / most
    else:
        least, most, step = 0, levels - 1, (high - low) / (levels - 1)
    safe = jnp.where(step > 0, step, 1)
    zero = (
        jnp.zeros_like(step)
        if symmetric
        else round_straight_through(_ratio(-low, safe))
    )
    clipped = _clip(x, (least - zero) * step, (most - zero) * step)
    return step * round_straight_through(_ratio(clipped, safe))


def binary_quantize(x: Array, *, axis: int | None = None) -> Array:
    """The sign of each value times the mean size of all; 0 counts as positive.

    The gradient passes straight through.

    Args:
        x: weights, any shape.
        axis: the axis of the channels, each with a size of its own; None for one.

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if `x` is empty or not floating, or the axis does not exist.

    Example:
        >>> print(binary_quantize(jnp.array([-1.0, 0.5, 3.0])))
        [-1.5  1.5  1.5]

    Reference:
        Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary
        Convolutional Neural Networks", 2016, arXiv 1603.05279.
    """
    shared = _check_values(x, axis)
    x = promote(x)
    size = jnp.mean(jnp.abs(x), shared, keepdims=True)
    return _instead(x, jnp.where(x < 0, -size, size))


def ternary_quantize(
    x: Array, *, threshold: float | Array = 0.7, axis: int | None = None
) -> Array:
    """Each value as one of -a, 0 and a.

    0 where `|x| <= threshold mean |x|`, else the sign times `a`, the mean size of
    those that are left. The gradient passes straight through.

    Args:
        x: weights, any shape.
        threshold: a scalar, not negative; published 0.7.
        axis: the axis of the channels, each with sizes of its own; None for one.

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if `x` is empty or not floating, the axis does not exist, or the
            threshold is negative.

    Example:
        >>> print(ternary_quantize(jnp.array([-2.0, 0.5, 0.1, 1.0])))
        [-1.5  0.   0.   1.5]

    Reference:
        Li, Zhang, Liu, "Ternary Weight Networks", 2016, arXiv 1605.04711.
    """
    shared = _check_values(x, axis)
    checks.between("threshold", threshold, 0.0)
    x = promote(x)
    size = jnp.abs(x)
    least = jnp.asarray(threshold, x.dtype) * jnp.mean(size, shared, keepdims=True)
    nonzero = size > least
    count = jnp.sum(nonzero, shared, keepdims=True, dtype=jnp.int32)
    total = jnp.sum(jnp.where(nonzero, size, 0), shared, keepdims=True)
    mean = total / jnp.maximum(count, 1).astype(x.dtype)
    return _instead(x, jnp.where(nonzero, jnp.sign(x) * mean, 0))


def _buckets(x: Array, size: int | None) -> tuple[Array, Array, Array]:
    """Values stretched to [0, 1], `[buckets, size]`, and each bucket's low and span."""
    if size is not None:
        checks.count("bucket", size)
    flat = promote(x).reshape(-1)
    size = flat.size if size is None else size
    padded = jnp.pad(flat, (0, -flat.size % size), mode="edge").reshape(-1, size)
    low = jnp.min(padded, 1, keepdims=True)
    span = jnp.max(padded, 1, keepdims=True) - low
    span = jnp.where(span < _FLAT, 1, span)
    return (padded - low) / span, low, span


def bucket_quantize(
    x: Array, *, levels: int, bucket: int | None = None, key: Array | None = None
) -> Array:
    """The nearest of evenly spaced levels between the ends of each bucket of values.

    The buckets are consecutive values of the flattened array; the last one may be
    shorter. Values of a bucket closer than 1e-10 are not stretched. The gradient
    passes straight through.

    Args:
        x: weights, any shape.
        levels: a whole number, at least 2; `2^b` for b bits.
        bucket: how many values share a range; None for all. The released script has
            256.
        key: a random key, to round up with the probability of the rest, right on
            average; None rounds to the nearest, halves to even.

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if `x` is empty or not floating, or a number is too low or no
            whole number.

    Example:
        >>> x = jnp.array([0.0, 0.2, 1.0, -4.0, -1.0, 0.0])
        >>> print(bucket_quantize(x, levels=3, bucket=3))
        [ 0.  0.  1. -4.  0.  0.]

    Reference:
        Polino, Pascanu, Alistarh, "Model Compression via Distillation and
        Quantization", 2018, arXiv 1802.05668.
    """
    _check_values(x)
    checks.count("levels", levels, 2)
    share, low, span = _buckets(x, bucket)
    steps = share * (levels - 1)
    if key is None:
        near = jnp.round(steps)
    else:
        near = jnp.floor(steps + jax.random.uniform(key, steps.shape, steps.dtype))
        near = jnp.minimum(near, levels - 1)
    value = low + span * near / (levels - 1)
    return _instead(promote(x), value.reshape(-1)[: x.size].reshape(x.shape))


def codebook_points(x: Array, *, levels: int, bucket: int | None = None) -> Array:
    """Points to start `codebook_quantize` from: quantiles of the stretched values.

    Args:
        x: weights, any shape.
        levels: how many points, at least 2; `2^b` for b bits.
        bucket: as in `codebook_quantize`.

    Returns:
        `[levels]` in [0, 1], ascending, at least float32.

    Raises:
        ValueError: if `x` is empty or not floating, or a number is too low or no
            whole number.

    Example:
        >>> print(codebook_points(jnp.array([0.0, 1.0, 1.0, 3.0, 4.0]), levels=3))
        [0.   0.25 1.  ]

    Reference:
        Polino, Pascanu, Alistarh, "Model Compression via Distillation and
        Quantization", 2018, arXiv 1802.05668.
    """
    _check_values(x)
    checks.count("levels", levels, 2)
    share, _, _ = _buckets(x, bucket)
    values = share.reshape(-1)[: x.size]
    return jnp.quantile(values, jnp.linspace(0, 1, levels, dtype=values.dtype))


def codebook_quantize(x: Array, points: Array, *, bucket: int | None = None) -> Array:
    """The nearest of learned points, between the ends of each bucket of values.

    `low + span points[k]` with `k` the point nearest to `(x - low) / span`, the first
    of two as near. The gradient goes to the points alone, `sum span g` over the values
    of each: `x` is held.

    Args:
        x: weights, any shape.
        points: `[levels]`, in units of the bucket's range; see `codebook_points`.
        bucket: how many consecutive values of the flattened array share a range; None
            for all.

    Returns:
        The shape of `x`, at least float32.

    Raises:
        ValueError: if `x` or `points` is empty or not floating, the points have
            another rank than 1, or the bucket is no whole number above 0.

    Example:
        >>> x, points = jnp.array([0.0, 1.0, 3.0, 4.0]), jnp.array([0.0, 0.3, 1.0])
        >>> print(codebook_quantize(x, points))
        [0.  1.2 4.  4. ]

    Reference:
        Polino, Pascanu, Alistarh, "Model Compression via Distillation and
        Quantization", 2018, arXiv 1802.05668.
    """
    _check_values(x)
    checks.floating("points", points)
    checks.rank("points", points, 1)
    checks.not_empty("points", points)
    share, low, span = lax.stop_gradient(_buckets(x, bucket))
    points = points.astype(share.dtype)
    gap = jnp.abs(share[..., None] - lax.stop_gradient(points)[None, None])
    value = low + span * points[jnp.argmin(gap, -1)]
    return value.reshape(-1)[: x.size].reshape(x.shape)
