"""Functions whose values and gradients stay finite where the textbook form breaks.

The rule throughout: select a safe input first, compute, then select the output.
Selecting the output alone still sends NaN back through the branch not taken.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import collectives
from kdjax.core.types import Array


def promote(x: Array) -> Array:
    """`x` in at least float32: half precision is promoted, float64 stays float64.

    Example:
        >>> promote(jnp.ones(2, jnp.bfloat16)).dtype
        dtype('float32')
    """
    x = jnp.asarray(x)
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(jnp.float32) if narrow else x


def promote_together(*arrays: Array) -> tuple[Array, ...]:
    """All arrays in one dtype: the widest of theirs, and at least float32."""
    wide = [promote(x) for x in arrays]
    common = max((x.dtype for x in wide), key=lambda dtype: dtype.itemsize)
    return tuple(x.astype(common) for x in wide)


def tempered_log_softmax(
    logits: Array,
    temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Log-probabilities of `softmax(logits / temperature)`, in at least float32.

    Args:
        logits: any shape.
        temperature: a scalar above 0.
        axis: the axis of the classes.
        where: the entries that take part, broadcastable to the logits. The others
            get 0, a finite filler that the caller leaves out by selection.
        axis_name: the mapped axis that divides the classes over devices, if any. Each
            device then has the log-probabilities of its own classes.

    An entry of minus infinity has log-probability minus infinity, as a constant: no
    gradient, in the temperature either, passes it.
    """
    logits = promote(logits)
    temperature = jnp.asarray(temperature, logits.dtype)
    if where is None:
        where = jnp.ones((1,) * logits.ndim, bool)
    where = jnp.broadcast_to(where, logits.shape)
    # Infinity is taken out before the division, whose derivative is infinite there.
    impossible = where & jnp.isneginf(logits)
    where = where & ~impossible
    scaled = jnp.where(where, logits, 0) / temperature
    top = jnp.max(jnp.where(where, scaled, -jnp.inf), axis, keepdims=True)
    # No finite entry: nothing to center on, and inf - inf would be NaN.
    top = collectives.largest(lax.stop_gradient(top), axis_name)
    top = jnp.where(jnp.isneginf(top), 0, top)
    # Unselected entries are set to the top: exp of their distance could overflow.
    centered = jnp.where(where, scaled - top, 0)
    total = jnp.sum(jnp.where(where, jnp.exp(centered), 0), axis, keepdims=True)
    total = collectives.total(total, axis_name)
    # The top entry adds 1, so that the sum is 0 for no entry alone.
    total = jnp.where(total == 0, 1, total)
    log_probs = jnp.where(where, centered - jnp.log(total), 0)
    return jnp.where(impossible, -jnp.inf, log_probs)


def divide_finite(x: Array, divisor: Array) -> Array:
    """`x / divisor`; minus infinity is a constant, with no gradient in either."""
    impossible = jnp.isneginf(x)
    return jnp.where(impossible, -jnp.inf, jnp.where(impossible, 0, x) / divisor)


def safe_sqrt(x: Array) -> Array:
    """The square root, with 0 and gradient 0 for `x <= 0`; NaN stays NaN."""
    flat = x <= 0
    return jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, x)))


def safe_abs(x: Array) -> Array:
    """The absolute value, with gradient 0 at 0 (where `jnp.abs` has 1)."""
    return jnp.where(x == 0, 0, jnp.abs(x))


def safe_norm(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """The Euclidean norm along `axis`, with gradient 0 at the zero vector."""
    return safe_sqrt(jnp.sum(jnp.square(x), axis, keepdims=keepdims))


def l2_normalize(x: Array, axis: int = -1, eps: float = 1e-12) -> Array:
    """`x / max(|x|, eps)` along `axis`; the zero vector gives 0 and gradient 0.

    The values are those of torch's `normalize`. The gradient at exactly zero is not:
    there torch has 1 / eps, which one pair of equal rows turns into a step of
    size 1e12.

    Example:
        >>> print(l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
        [[0.6 0.8]
         [0.  0. ]]
    """
    norm = safe_norm(x, axis, keepdims=True)
    zero = norm == 0
    unit = jnp.where(zero, 0, x) / jnp.maximum(jnp.where(zero, 1, norm), eps)
    return jnp.where(zero, 0, unit)


def huber(x: Array, delta: float | Array = 1.0) -> Array:
    """`x^2 / 2` up to `delta`, the tangent line beyond.

    Example:
        >>> print(huber(jnp.array([0.5, -3.0])))
        [0.125 2.5  ]
    """
    size = jnp.abs(x)
    inside = jnp.minimum(size, delta)
    return inside * (size - inside / 2)


def _squared_distances(x: Array) -> Array:
    # Eight coordinates a step: as many as one pass over the sums can hold at once.
    rows, width = x.shape
    groups = jnp.pad(x, ((0, 0), (0, -width % 8))).T.reshape(-1, 8, rows)

    def add(total: Array, group: Array) -> tuple[Array, None]:
        gaps = (column[:, None] - column[None, :] for column in group)
        return total + functools.reduce(jnp.add, map(jnp.square, gaps)), None

    # Zeros like x vary over the devices of a shard_map as x does.
    return lax.scan(add, jnp.zeros_like(x, shape=(rows, rows)), groups)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def pairwise_distances(x: Array, eps: float = 1e-12) -> Array:
    """Euclidean distances between all rows of `x` `[N, D]`, as `[N, N]`.

    From the differences themselves, not from a Gram matrix, which loses the digits
    of near neighbors. Squared distances are raised to `eps` before the root, so two
    equal rows are `sqrt(eps)` apart (with gradient 0); the diagonal is exactly 0.

    The gradient is one product of matrices. What a pair adds to it is a vector of
    length 1, with the rounding of the largest row (less the mean row) relative to
    the pair's distance: 1e-4 in float32 for a distance of a thousandth of that row.
    """
    squared = _squared_distances(x)
    distance = jnp.sqrt(jnp.where(squared < eps, eps, squared))
    return jnp.where(jnp.eye(x.shape[0], dtype=bool), 0, distance)


@pairwise_distances.defjvp
def _pairwise_tangent(
    eps: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (moved,) = primals, tangents
    distance = pairwise_distances(x, eps)
    # A shift changes no distance, and short rows lose fewer digits in a product.
    x = x - lax.stop_gradient(jnp.mean(x, axis=0, keepdims=True))
    product = jnp.matmul(moved, x.T, precision=lax.Precision.HIGHEST)
    along = jnp.sum(x * moved, axis=1, keepdims=True) - product
    # A little above the smallest distance, which is itself a rounded root.
    flat = distance <= math.sqrt(eps) * (1 + 4 * float(jnp.finfo(x.dtype).eps))
    slope = jnp.where(flat, 0, 1 / jnp.where(flat, 1, distance))
    return distance, slope * (along + along.T)


@jax.custom_jvp
def round_straight_through(x: Array) -> Array:
    """To whole numbers, halves to even, with the gradient of `x` itself."""
    return jnp.round(x)


round_straight_through.defjvp(
    lambda primals, tangents: (jnp.round(primals[0]), tangents[0])
)
