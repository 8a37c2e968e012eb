"""Losses between the self-attention layers of two transformers.

Attention maps are `[batch, heads, queries, keys]`, as `flax` keeps them: take them
before dropout. A map of a fused attention kernel does not exist anywhere; the values
(`value_relation`) do.
"""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

HEADS = ("each", "mean")


MAP_INPUTS = ("weights", "scores")


MAP_VARIANTS = ("all", "valid")


def _last(x: Array, axis: int, where: Array | None) -> tuple[Array, Array]:
    """`x` with the axis moved to the end, and a mask that broadcasts to it."""
    if where is None:
        where = jnp.ones((1,) * x.ndim, bool)
    where = lax.expand_dims(jnp.asarray(where), range(x.ndim - where.ndim))
    return jnp.moveaxis(x, axis, -1), jnp.moveaxis(where, axis, -1)


def _check_maps(student, teacher, axis, where) -> int:
    for name, x in (("student_attention", student), ("teacher_attention", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 4)
        checks.not_empty(name, x)
    keys = checks.axis(axis, "student_attention", student)
    if keys == 0:
        checks.refuse("axis", "the axis of the keys", "the batch axis 0")
    checks.mask("where", where, student.shape)
    return keys


def _maps(student, teacher, heads, axis, where):
    """Both maps in one dtype, keys last, with masked entries at 0; and the mask."""
    keys = _check_maps(student, teacher, axis, where)
    checks.one_of("heads", heads, HEADS)
    student, teacher = promote_together(student, teacher)
    student, where = _last(student, keys, where)
    teacher = jnp.moveaxis(teacher, keys, -1)
    batch, count, *size = student.shape
    if heads == "mean":
        checks.shape("where", where, (where.shape[0], 1, *where.shape[2:]))
        count = teacher.shape[1]
    checks.shape("teacher_attention", teacher, (batch, count, *size))
    where = jnp.broadcast_to(where, (batch, where.shape[1], *size))
    student, teacher = (
        jnp.where(jnp.broadcast_to(where, x.shape), x, 0) for x in (student, teacher)
    )
    return student, teacher, where


def attention_map_mse(
    student_attention: Array,
    teacher_attention: Array,
    *,
    heads: str = "each",
    variant: str = "valid",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """TinyBERT attention loss: squared difference of attention maps.

    `1/n sum_hqk (s_hqk - t_hqk)^2` over heads, queries and keys. TinyBERT takes the
    scores before the softmax, one term per mapped layer, summed (`layer_map`).

    `"valid"` divides by the number `n` of entries that `where` selects: padding does
    not change the loss. `"all"` divides by the number of all entries, as TinyBERT's
    code does, which sets masked scores (those of -100 and below) to 0 for student and
    teacher; a batch with much padding then has a smaller loss. The default is
    `"valid"`; the two agree without a mask.

    Args:
        student_attention: `[batch, heads, queries, keys]`, scores or weights.
        teacher_attention: the same shape; with `heads="mean"` the number of heads
            may differ.
        heads: `"each"` compares head by head, `"mean"` the averages over the heads.
        variant: `"valid"` or `"all"`.
        axis: the axis of the keys; not the first. The others keep their order.
        where: bool, broadcastable to the maps, for example `[batch, 1, 1, keys]` or
            a causal `[queries, keys]`; the entries that take part. With
            `heads="mean"` it must not differ between heads.

    Returns:
        `[batch]`, one value per example in squared units of the maps, at least
        float32. The published weight is 1 for every layer.

    Raises:
        ValueError: if shapes do not match, are empty or not of rank 4, a dtype is
            not floating, or an option is unknown.

    Example:
        >>> student = jnp.zeros((2, 4, 3, 3))
        >>> causal = jnp.tril(jnp.ones((3, 3), bool))
        >>> print(attention_map_mse(student, student + 1, where=causal))
        [1. 1.]
        >>> values = attention_map_mse(
        ...     student, student + 1, where=causal, variant="all"
        ... )
        >>> print(f"{values.mean():.4f}")
        0.6667

    Reference:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding",
        2020, arXiv 1909.10351.
    """
    checks.one_of("variant", variant, MAP_VARIANTS)
    student, teacher, where = _maps(
        student_attention, teacher_attention, heads, axis, where
    )
    if heads == "mean":
        student, teacher = (jnp.mean(x, 1, keepdims=True) for x in (student, teacher))
    square = jnp.square(student - teacher)
    return masked_mean(square, (1, 2, 3), where if variant == "valid" else None)


def _log_weights(maps, inputs, heads, eps, where):
    """Log-probabilities over the selected keys, finite everywhere."""
    if inputs == "weights":
        small = maps < eps
        maps = jnp.where(small, jnp.log(eps), jnp.log(jnp.where(small, eps, maps)))
    log = tempered_log_softmax(maps, 1.0, -1, where)
    if heads == "each":
        return log
    mean = jnp.mean(jnp.where(where, jnp.exp(log), 0), 1, keepdims=True)
    small = mean < eps
    log = jnp.where(small, jnp.log(eps), jnp.log(jnp.where(small, eps, mean)))
    return tempered_log_softmax(log, 1.0, -1, where)


def _map_divergence(log_student, log_teacher, where) -> Array:
    """Divergence of the rows, averaged over heads and the queries with a key."""
    share = jnp.exp(log_teacher)
    gap = jnp.where(share == 0, 0, log_teacher - log_student)
    value = masked_sum(share * gap, -1, where)
    valid_rows = jnp.broadcast_to(jnp.any(where, -1), value.shape)
    return masked_mean(value, (1, 2), valid_rows)


def attention_map_kl(
    student_attention: Array,
    teacher_attention: Array,
    *,
    inputs: str = "weights",
    heads: str = "each",
    eps: float = 1e-12,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """MiniLM attention transfer: KL divergence between attention distributions.

    `1/(H Q) sum_hq KL(a_hq^t || a_hq^s)`, each row a distribution over the keys,
    averaged over the heads and over the queries that have at least one key.

    `"weights"` are what the softmax gives: they are raised to `eps` and divided by
    their sum over the selected keys, so that weights rounded to bfloat16, or zero,
    do no harm. `"scores"` are what goes into the softmax: more exact where a map is
    nearly one-hot. The default is what models keep, the weights.

    Args:
        student_attention: `[batch, heads, queries, keys]`.
        teacher_attention: the same shape; with `heads="mean"` the number of heads
            may differ.
        inputs: whether the maps are `"weights"` or `"scores"`.
        heads: `"each"` compares head by head, `"mean"` the averages of the weights
            over the heads.
        eps: the smallest weight, above 0.
        axis: the axis of the keys; not the first. The others keep their order.
        where: bool, broadcastable to the maps; the entries that take part. A query
            without any is not counted. With `heads="mean"` it must not differ
            between heads.

    Returns:
        `[batch]`, one value in nats per example, at least float32. The published
        loss, MiniLM's for the last layer of both networks, is its plain mean; its
        weight there is 1, with 1 for `value_relation`.

    Raises:
        ValueError: if shapes do not match, are empty or not of rank 4, a dtype is
            not floating, an option is unknown or `eps` is not above 0.

    Example:
        >>> student = jnp.full((1, 2, 3, 4), 0.25)
        >>> teacher = jnp.broadcast_to(jnp.array([0.7, 0.1, 0.1, 0.1]), (1, 2, 3, 4))
        >>> print(f"{attention_map_kl(student, teacher)[0]:.4f}")
        0.4458

    Reference:
        Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic
        Compression of Pre-Trained Transformers", 2020, arXiv 2002.10957.
    """
    checks.one_of("inputs", inputs, MAP_INPUTS)
    checks.positive("eps", eps)
    student, teacher, where = _maps(
        student_attention, teacher_attention, heads, axis, where
    )
    floor = jnp.asarray(eps, student.dtype)
    log_student = _log_weights(student, inputs, heads, floor, where)
    log_teacher = _log_weights(teacher, inputs, heads, floor, where)
    return _map_divergence(log_student, log_teacher, where)


def _check_values(student: Array, teacher: Array, where: Array | None):
    for name, x in (("student_values", student), ("teacher_values", teacher)):
        checks.floating(name, x)
        checks.rank(name, x, 4)
        checks.not_empty(name, x)
    expected = (*student.shape[:3], teacher.shape[3])
    checks.shape("teacher_values", teacher, expected)
    batch, heads, positions, _ = student.shape
    if where is None or where.shape != (batch, positions):
        checks.mask("where", where, (batch, heads, positions, 1))


def _relation(values: Array, pairs: Array) -> Array:
    """Log-probabilities of the scaled products of all pairs of positions."""
    width = jnp.asarray(values.shape[-1], values.dtype)
    # Scaled first: the products of large values could overflow.
    values = values / jnp.sqrt(jnp.sqrt(width))
    scores = jnp.matmul(values, values.mT, precision=lax.Precision.HIGHEST)
    return tempered_log_softmax(scores, 1.0, -1, pairs)


def value_relation(
    student_values: Array,
    teacher_values: Array,
    *,
    where: Array | None = None,
) -> Array:
    """MiniLM value relation: KL divergence between relations of the values.

    `1/(H P) sum_hp KL(r_hp^t || r_hp^s)` with `r_h = softmax(V_h V_h^T / sqrt(d))`
    over the positions, `V_h` the `[positions, d]` values of head h. The widths of
    the heads may differ: each side divides by the root of its own. Turning all
    values of a head changes nothing.

    With the queries or the keys in place of the values this is MiniLM v2's loss;
    cut student and teacher into the same number of relation heads for it.

    Args:
        student_values: `[batch, heads, positions, d]`.
        teacher_values: `[batch, heads, positions, e]`.
        where: bool, `[batch, positions]`, or broadcastable to
            `[batch, heads, positions, 1]`; the positions that take part, as keys and
            as queries.

    Returns:
        `[batch]`, one value in nats per example, at least float32. The published
        loss, for the last layer of both networks, is its plain mean; its weight is
        1, with 1 for `attention_map_kl`.

    Raises:
        ValueError: if shapes do not match, are empty or not of rank 4, or a dtype is
            not floating.

    Example:
        >>> student = jnp.array([[[[1.0, 0], [0, 1], [1, 1]]]])
        >>> teacher = jnp.array([[[[2.0], [0], [1]]]])
        >>> print(f"{value_relation(student, teacher)[0]:.4f}")
        0.3074

    Reference:
        Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic
        Compression of Pre-Trained Transformers", 2020, arXiv 2002.10957; and
        "MiniLMv2", 2021, arXiv 2012.15828.
    """
    _check_values(student_values, teacher_values, where)
    student, teacher = promote_together(student_values, teacher_values)
    batch, _, positions, _ = student.shape
    if where is None:
        where = jnp.ones(1, bool)
    elif where.shape == (batch, positions):
        where = jnp.asarray(where)[:, None, :, None]
    keep = jnp.broadcast_to(where, (*student.shape[:3], 1))
    student, teacher = (jnp.where(keep, x, 0) for x in (student, teacher))
    pairs = keep & keep.mT
    return _map_divergence(_relation(student, pairs), _relation(teacher, pairs), pairs)
