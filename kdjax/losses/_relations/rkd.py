"""Losses between the geometry of two batches of embeddings.

Their value for one example depends on all others, so they mean the global batch.
Under `jax.jit` over a mesh that is what they compute. Under `jax.pmap` or
`jax.shard_map`, pass features (and `where`) gathered with `kdjax.core.collectives`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from kdjax.core import checks
from kdjax.core.examples import embeddings, pair_mask, require_examples
from kdjax.core.numerics import huber, pairwise_distances, promote_together, safe_abs
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch
from kdjax.losses._relations._rows import BLOCK, map_rows

# A ray shorter than this is divided by this instead of its length.
_SHORT = 1e-12


def _relative_distances(features: Array, valid: Array, squared: bool) -> Array:
    """Distances, or their squares, in units of their mean over the distinct pairs."""
    distance = pairwise_distances(features)
    if squared:
        distance = jnp.square(distance)
    count = jnp.sum(valid, dtype=jnp.int32).astype(distance.dtype)
    total = jnp.sum(jnp.where(pair_mask(valid), distance, 0))
    unit = total / jnp.maximum(count * (count - 1), 1)
    return distance * (1 / jnp.where(unit == 0, 1, unit))


@over_global_batch()
def rkd_distance(
    student_features: Array,
    teacher_features: Array,
    *,
    squared: bool = False,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Relational KD, distance-wise (RKD-D): Huber loss of normalized distances.

    For the anchor i: `1/N sum_j Huber_1(d_ij^t / mu^t - d_ij^s / mu^s)` with
    `d_ij = |f_i - f_j|` and `mu` the mean of the positive distances of that network.
    Turning, shifting or scaling student or teacher changes nothing. The gradient flows
    through both `mu`.

    Squared distances are raised to 1e-12 before the root, as in the authors' code:
    equal rows are 1e-6 apart, count as positive, and enter `mu`. One or two rows that
    take part give 0, and so do two batches that have each collapsed to a point; a
    batch that has collapsed against one that has not does not.

    The distances come from the differences of the rows. A Gram matrix, as in the
    authors' code, is hardly cheaper, and in float32 the gradient of a row with a
    neighbor a thousand times nearer than the others would be off by half.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        squared: whether `d` and `mu` are those of the squared distances. The published
            loss and weight are those of the distances themselves.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row, at least float32. The published loss, the
        mean over all `N^2` entries, is its plain mean (over the examples that take
        part); its weight there is 25 with 50 for `rkd_angle`.

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows
            differs or is below 3, or a dtype is not floating.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = rkd_distance(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0666
        >>> print(f"{rkd_distance(student, teacher, squared=True).mean():.4f}")
        0.1335

    Reference:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019,
        arXiv 1904.05068.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.boolean("squared", squared)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    why = "the distance of 2 over the mean is 1"
    require_examples("student_features", valid.size, 3, why)
    gap = _relative_distances(teacher, valid, squared)
    gap -= _relative_distances(student, valid, squared)
    return masked_mean(huber(gap), axis=1, where=pair_mask(valid))


class _Rays(NamedTuple):
    """One network's squared distances, or some rows, and one over the distances.

    The latter is 0 between equal rows and for pairs that do not take part, so that
    the cosines with such a ray are 0; `curve` is its square where it is not capped.
    """

    squared: Array
    inverse: Array
    curve: Array


def _rays(squared: Array, valid: Array) -> _Rays:
    capped = squared < _SHORT**2
    inverse = 1 / jnp.sqrt(jnp.where(capped, _SHORT**2, squared))
    inverse = jnp.where((squared != 0) & pair_mask(valid), inverse, 0)
    return _Rays(squared, inverse, jnp.where(capped, 0, jnp.square(inverse)))


def _opposite(rays: _Rays, end: _Rays) -> Array:
    """`2 <f_i - f_j, f_k - f_j>` of one end i, all vertices j and other ends k."""
    return end.squared[:, None] + rays.squared - end.squared[None, :]


def _cosines(rays: _Rays, end: _Rays) -> Array:
    return _opposite(rays, end) * rays.inverse * (end.inverse / 2)[:, None]


def _turned(rays: _Rays, end: _Rays, moved: Array, weight: Array) -> Array:
    """Change of every vertex's weighted cosines when distances from i change.

    `moved` `[N]` is the change of the squared ones. The two ends of an angle are
    alike, so the ray to k is counted as a second time that to i.
    """
    pull = weight * rays.inverse
    stretch = 1 - _opposite(rays, end) * (end.curve / 2)[:, None]
    along = jnp.sum(pull * stretch, axis=1) * moved
    across = jnp.matmul(pull, moved, precision=lax.Precision.HIGHEST) / 2
    return end.inverse * (along - across)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _angle_gaps(student: Array, teacher: Array, valid: Array, chunk: int) -> Array:
    """Sum over both ends of the Huber loss of each vertex's cosines, `[N]`.

    From squared distances, `[N, N]`, by the law of cosines: `N^3` scalars, where rays
    would take `N^3 D`.
    """
    # The law of cosines needs distances alone: no [N, N, D] of rays is ever made.
    sides = _rays(student, valid), _rays(teacher, valid)

    def from_end(ends: tuple[_Rays, _Rays]) -> Array:
        ours, theirs = map(_cosines, sides, ends)
        return jnp.sum(huber(theirs - ours), axis=1)

    return jnp.sum(map_rows(from_end, sides, chunk), axis=0)


def _angle_tangent(chunk: int, primals, tangents) -> tuple[Array, Array]:
    student, teacher, valid = primals
    sides = _rays(student, valid), _rays(teacher, valid)
    moved = [None if isinstance(x, SymbolicZero) else x for x in tangents[:2]]

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def from_end(rows) -> Array:
        ends, moved = rows
        ours, theirs = map(_cosines, sides, ends)
        weight = jnp.clip(theirs - ours, -1, 1)
        change = jnp.zeros_like(weight[0])
        for side, end, move, w in zip(
            sides, ends, moved, (-weight, weight), strict=True
        ):
            if move is not None:
                change += _turned(side, end, move, w)
        return change

    change = map_rows(from_end, (sides, moved), chunk)
    return _angle_gaps(student, teacher, valid, chunk), jnp.sum(change, axis=0)


_angle_gaps.defjvp(_angle_tangent, symbolic_zeros=True)


@over_global_batch()
def rkd_angle(
    student_features: Array,
    teacher_features: Array,
    *,
    chunk: int | None = None,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Relational KD, angle-wise (RKD-A): Huber loss of the cosines of all triples.

    For the vertex j: `1/N^2 sum_ik Huber_1(A_jik^t - A_jik^s)` with the cosine
    `A_jik = <e_ji, e_jk>` and the rays `e_jk = (f_k - f_j) / max(|f_k - f_j|, 1e-12)`.
    Degenerate triples are counted, as in the authors' code: the cosine is 0 where i
    or k is the vertex, 1 where i is k. A ray between equal rows is 0 and has
    gradient 0.

    Time grows with `N^3`, whatever the widths: the cosines come from the distances by
    the law of cosines. Memory does not: the ends i are taken `chunk` at a time, and
    their cosines are computed again in the backward pass.

    A cosine has the rounding of the longer of its two rays relative to the shorter:
    in float32 1e-7 as a rule, 1e-4 with a neighbor a thousand times nearer than
    the others. Pass float64 where such neighbors must count to the last digit.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        chunk: how many rows to take at a time; by default as many as make about a
            million cosines, 4 at N = 512. It does not change the value.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per vertex, at least float32. The published loss, the mean
        over all `N^3` entries, is its plain mean (over the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, the number of rows
            differs or is below 3, a dtype is not floating, or `chunk` is below 1.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = rkd_angle(student, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.0667

    Reference:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019,
        arXiv 1904.05068.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 3, "an angle has 3")
    if chunk is None:
        chunk = max(1, BLOCK // valid.size**2)
    checks.count("chunk", chunk)
    squared = (jnp.square(pairwise_distances(x, 0.0)) for x in (student, teacher))
    count = jnp.maximum(jnp.sum(valid, dtype=jnp.int32), 1).astype(student.dtype)
    return _angle_gaps(*squared, valid, chunk) / jnp.square(count)


@over_global_batch()
def rkd(
    student_features: Array,
    teacher_features: Array,
    *,
    potential: Callable[..., Array],
    order: int = 2,
    normalize: bool = False,
    delta: float | Array = 1.0,
    chunk: int | None = None,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Relational KD (RKD): Huber loss of any potential of pairs, triples, ...

    For the anchor i: the mean of `Huber(psi(t_i, t_j, ...) - psi(s_i, s_j, ...))` over
    all tuples of `order` different examples that begin with i. `psi` is the potential.
    If `normalize`, each network's potentials are first divided by the mean of their
    absolute values.

    `rkd_distance` and `rkd_angle` are the two published potentials. They are faster
    than this general form, and also count tuples with repeated examples.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        potential: a function of `order` embeddings `[D]` (or `[E]`) that returns a
            scalar. Its gradient must be finite for equal embeddings, which batches
            with duplicates contain.
        order: examples in a tuple: 2 for pairs, 3 for triples. Time and memory grow
            with `N^order`.
        normalize: whether potentials are divided by their mean absolute value over all
            tuples, as the paper does with distances. Means below 1e-18 divide nothing.
        delta: where the Huber loss becomes linear, a scalar above 0.
        chunk: how many anchors to take at a time; by default as many as make about
            a million tuples. It does not change the value.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor, at least float32. The published loss is its plain
        mean (over the examples that take part).

    Raises:
        ValueError: if an argument is not of rank 2 or has fewer than `order` examples,
            the number of rows differs, a dtype is not floating, a number is out of its
            range, or the potential is no function that returns a floating scalar.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = rkd(student, teacher, potential=jnp.dot)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 0.5000

    Reference:
        Park, Kim, Lu, Cho, "Relational Knowledge Distillation", 2019,
        arXiv 1904.05068.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.count("order", order, 2)
    checks.positive("delta", delta)
    checks.boolean("normalize", normalize)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, order, f"tuples have {order}")
    others = _others(valid.size, order)
    if chunk is None:
        chunk = max(1, BLOCK // len(others))
    checks.count("chunk", chunk)
    # Row i holds the tuples of anchor i: those whose other examples all take part.
    everyone = jnp.arange(valid.size, dtype=jnp.int32)
    rows = (everyone[:, None, None] + others[None]) % valid.size
    counted = valid[:, None] & jnp.all(valid[rows], -1)
    sides = [
        _potentials(x, valid, potential, rows, chunk, order) for x in (student, teacher)
    ]
    if normalize:
        sides = [_over_mean(x, counted) for x in sides]
    ours, theirs = promote_together(*sides)
    return masked_mean(huber(theirs - ours, delta), 1, counted)


def _over_mean(potentials: Array, counted: Array) -> Array:
    """Potentials divided by the mean of their absolute values."""
    mean = masked_mean(safe_abs(potentials), where=counted)
    # Below this the square of the mean, in the gradient, would underflow.
    return potentials / jnp.where(mean < 1e-18, 1, mean)


def _others(rows: int, order: int) -> np.ndarray:
    """Offsets from an anchor to the other examples of its tuples, `[T, order - 1]`."""
    offsets = itertools.permutations(range(1, rows), order - 1)
    return np.array(list(offsets), np.int32).reshape(-1, order - 1)


def _potentials(
    features: Array,
    valid: Array,
    potential: Callable[..., Array],
    rows: Array,
    chunk: int,
    order: int,
) -> Array:
    """`[N, T]`: the potential of each anchor's tuples."""
    if not callable(potential):
        expected = f"a function of {order} embeddings"
        checks.refuse("potential", expected, repr(potential))
    result = jax.eval_shape(potential, *[features[0]] * order)
    if getattr(result, "shape", None) != () or not checks.is_floating(result):
        checks.refuse("potential", "a floating scalar", result)
    # Masked rows are all 0. Potentials such as distances have no gradient between
    # equal rows, so the masked ones are replaced by constants that differ.
    index = jnp.arange(1, valid.size + 1, dtype=features.dtype)
    features = jnp.where(valid[:, None], features, index[:, None])

    def of_anchor(anchor: tuple[Array, Array]) -> Array:
        features_i, tuples = anchor
        return jax.vmap(lambda row: potential(features_i, *features[row]))(tuples)

    of_anchor = jax.checkpoint(of_anchor, prevent_cse=False)
    return map_rows(of_anchor, (features, rows), chunk)
