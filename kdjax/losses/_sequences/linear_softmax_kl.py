"""Divergence of two language models from their last hidden states.

The logits of both networks, `tokens x vocabulary`, are by far the largest arrays of
such a loss. They are made here for a block of the vocabulary at a time, forward and
again backward, so that neither network's are ever held whole.

Blocks of the vocabulary, not of the tokens: then the gradient of a block of a head is
finished in one step and is written where it belongs, in the head's own dtype, while
only that of the small hidden states is summed over steps; and a head is read once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from kdjax.core import checks, collectives
from kdjax.core.numerics import promote
from kdjax.core.types import Array

# Logits of one network that one step holds, by default.
_BLOCK = 2**22


class _Side(NamedTuple):
    """One network's last layer: `[tokens, width]`, `[width, vocabulary]`, bias."""

    hidden: Array
    head: Array
    bias: Array | None


class _Inputs(NamedTuple):
    """Differentiable arguments; in a gradient, None for those not differentiated."""

    student: Any
    teacher: Any
    temperature: Any


class _Normalizer(NamedTuple):
    """The log of a softmax's denominator as `top + log(total)`, `[tokens, 1]` each."""

    top: Array
    total: Array


def _wide(*arrays: Array | None) -> Any:
    """The dtype to sum in: the widest of the arrays, and at least float32."""
    present = [promote(x).dtype for x in arrays if x is not None]
    return max(present, key=lambda dtype: dtype.itemsize)


def _matmul(a: Array, b: Array, contract: tuple[int, int], dtype) -> Array:
    """A product of two matrices that sums in `dtype`, without widening its inputs."""
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=dtype)


class _Block(NamedTuple):
    """A block of the vocabulary.

    start: its first entry. The last block begins early, so as to be full.
    fresh: `[1, block]`, which entries no earlier block has had.
    """

    start: Array
    fresh: Array


def _blocks(inputs: _Inputs, chunk: int) -> _Block:
    vocabulary = inputs.student.head.shape[1]
    first = jnp.arange(0, vocabulary, chunk, dtype=jnp.int32)
    start = jnp.minimum(first, vocabulary - chunk)
    entries = start[:, None] + jnp.arange(chunk, dtype=jnp.int32)[None, :]
    return _Block(start, (entries >= first[:, None])[:, None, :])


def _bits(x: Array) -> Array:
    # XLA on CPU widens a half-precision array whole to take a slice of it.
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _cut(x: Array, block: _Block) -> Array:
    length = block.fresh.shape[-1]
    part = lax.dynamic_slice_in_dim(_bits(x), block.start, length, -1)
    return lax.bitcast_convert_type(part, x.dtype)


def _put(bits: Array, part: Array, block: _Block, dtype) -> Array:
    part = _bits(part.astype(dtype))
    return lax.dynamic_update_slice_in_dim(bits, part, block.start, -1)


def _logits(side: _Side, block: _Block, dtype) -> Array:
    logits = _matmul(side.hidden, _cut(side.head, block), (1, 0), dtype)
    if side.bias is None:
        return logits
    return logits + _cut(side.bias, block).astype(dtype)[None, :]


def _dtype(inputs: _Inputs) -> Any:
    return _wide(*inputs.student, *inputs.teacher)


def _advance(old: _Normalizer, scaled: Array) -> _Normalizer:
    """The normalizer with a block of tempered logits added."""
    # Sums are kept relative to the largest logit so far, so that none overflows.
    top = jnp.maximum(old.top, jnp.max(scaled, -1, keepdims=True))
    total = old.total * jnp.exp(old.top - top)
    return _Normalizer(top, total + jnp.sum(jnp.exp(scaled - top), -1, keepdims=True))


def _scan_divergence(inputs: _Inputs, chunk: int):
    """Divergence `[tokens, 1]` and both normalizers, in one pass over the heads."""
    dtype = _dtype(inputs)
    temperature = inputs.temperature.astype(dtype)

    def step(carry, block):
        normalizers, cost = carry
        scaled = tuple(
            jnp.where(block.fresh, _logits(side, block, dtype) / temperature, -jnp.inf)
            for side in inputs[:2]
        )
        new = tuple(map(_advance, normalizers, scaled))
        moved = [old.top - now.top for old, now in zip(normalizers, new, strict=True)]
        # Costs are relative to both tops: moving these changes the costs so far.
        cost = cost + normalizers[1].total * (moved[1] - moved[0])
        share = jnp.exp(scaled[1] - new[1].top)
        gap = (scaled[1] - new[1].top) - (scaled[0] - new[0].top)
        gap = jnp.where(share == 0, 0, gap)
        added = jnp.sum(share * gap, -1, keepdims=True)
        return (new, cost * jnp.exp(moved[1]) + added), None

    zero = _origin(inputs, dtype) + jnp.zeros_like(inputs.student.hidden[:, :1], dtype)
    empty = _Normalizer(zero + jnp.finfo(dtype).min, zero)
    start = ((empty, empty), zero)
    (normalizers, cost), _ = lax.scan(step, start, _blocks(inputs, chunk))
    student, teacher = normalizers
    value = cost / teacher.total + jnp.log(student.total) - jnp.log(teacher.total)
    return value, normalizers


def _origin(inputs: _Inputs, dtype) -> Array:
    """The number 0, varying over the devices of a shard_map as all inputs together do,
    which is what a scan over them must start from."""
    sides = inputs.student, inputs.teacher
    corners = [x[0, 0] for side in sides for x in (side.hidden, side.head)]
    return sum((jnp.zeros_like(x, dtype) for x in corners), jnp.zeros((), dtype))


@jax.custom_vjp
def _chunked_kl(inputs: _Inputs, block: Array) -> Array:
    """`KL(p || q)` for every token; `block` is an empty array, as long as a block."""
    return _scan_divergence(inputs, block.shape[0])[0]


class _Needs(NamedTuple):
    """Gradients to compute: `()` stands for yes, None for no."""

    student: tuple[()] | None
    teacher: tuple[()] | None
    temperature: tuple[()] | None


def _is_primal(x) -> bool:
    return hasattr(x, "perturbed")


def _forward(inputs, block):
    def find_perturbed(part):
        leaves = jax.tree.leaves(part, is_leaf=_is_primal)
        return () if any(leaf.perturbed for leaf in leaves) else None

    needs = _Needs(*map(find_perturbed, inputs))
    values = jax.tree.map(lambda x: x.value, inputs, is_leaf=_is_primal)
    divergence, normalizers = _scan_divergence(values, block.value.shape[0])
    return divergence, (values, needs, divergence, normalizers, block.value)


def _log_probs(side, normalizer, temperature, block, dtype) -> tuple[Array, Array]:
    logits = _logits(side, block, dtype)
    centered = logits / temperature - normalizer.top
    return logits, centered - jnp.log(normalizer.total)


def _pull_back(dz: Array, side: _Side, grads: _Side, block: _Block, dtype) -> _Side:
    """Gradients of one side with those of a block of its logits added."""
    fresh = jnp.where(block.fresh, dz, 0)
    hidden = grads.hidden + _matmul(fresh, _cut(side.head, block), (1, 1), dtype)
    # Entries that two blocks share come out the same, and are written twice.
    head = _matmul(side.hidden, dz, (0, 0), dtype)
    head, bias = _put(grads.head, head, block, side.head.dtype), None
    if side.bias is not None and grads.bias is not None:
        bias = _put(grads.bias, jnp.sum(dz, 0), block, side.bias.dtype)
    return _Side(hidden, head, bias)


def _start(side: _Side, is_needed, origin: Array) -> _Side | None:
    if is_needed is None:
        return None

    def bits(x: Array) -> Array:
        return _bits(jnp.zeros_like(x) + origin.astype(x.dtype))

    hidden = jnp.zeros(side.hidden.shape, origin.dtype) + origin
    return _Side(
        hidden, bits(side.head), None if side.bias is None else bits(side.bias)
    )


def _slope(logits: Array, dz: Array, fresh: Array) -> Array:
    # A class ruled out by minus infinity has gradient 0, not 0 times infinity.
    counts = fresh & (dz != 0)
    return jnp.sum(jnp.where(counts, logits, 0) * dz)


def _backward(residuals, cotangent):
    inputs, needs, value, normalizers, length = residuals
    if isinstance(cotangent, SymbolicZero):
        return None, None
    dtype = _dtype(inputs)
    temperature = inputs.temperature.astype(dtype)
    weight = cotangent.astype(dtype) / temperature

    def step(grads, block):
        student, teacher, slope = grads
        (logits, log_q), (logits_t, log_p) = (
            _log_probs(side, normalizer, temperature, block, dtype)
            for side, normalizer in zip(inputs[:2], normalizers, strict=True)
        )
        share = jnp.exp(log_p)
        # Logits are computed again: storing them would need the memory saved here.
        dz = weight * (jnp.exp(log_q) - share)
        dz_t = weight * share * (jnp.where(share == 0, 0, log_p - log_q) - value)
        if student is not None:
            student = _pull_back(dz, inputs.student, student, block, dtype)
        if teacher is not None:
            teacher = _pull_back(dz_t, inputs.teacher, teacher, block, dtype)
        if slope is not None:
            both = _slope(logits, dz, block.fresh) + _slope(logits_t, dz_t, block.fresh)
            slope = slope - both / temperature
        return (student, teacher, slope), None

    origin = _origin(inputs, dtype) + jnp.zeros_like(weight[0, 0])
    start = (
        _start(inputs.student, needs.student, origin),
        _start(inputs.teacher, needs.teacher, origin),
        None if needs.temperature is None else origin,
    )
    grads, _ = lax.scan(step, start, _blocks(inputs, length.shape[0]))
    return _Inputs(*map(_narrow, grads, inputs)), None


def _varying(x: Array) -> frozenset:
    """The axes of a shard_map over which an array differs from device to device."""
    kind: Any = jax.typeof(x)
    return kind.manual_axis_type.varying


def _narrow(grad, like):
    """Gradients in the dtypes of the inputs; None for those not needed."""
    if grad is None:
        return None

    def narrow(g, x):
        if jnp.issubdtype(g.dtype, jnp.unsignedinteger):
            g = lax.bitcast_convert_type(g, x.dtype)
        # What all devices of a shard_map share has the sum of their gradients.
        shared = tuple(_varying(g) - _varying(x))
        return (lax.psum(g, shared) if shared else g).astype(x.dtype)

    return jax.tree.map(narrow, grad, like)


_chunked_kl.defvjp(_forward, _backward, symbolic_zeros=True)


def _check_side(name: str, hidden: Array, head: Array, bias: Array | None):
    checks.floating(f"{name}_hidden", hidden)
    checks.rank(f"{name}_hidden", hidden, 2, at_least=True)
    checks.not_empty(f"{name}_hidden", hidden)
    checks.floating(f"{name}_head", head)
    checks.rank(f"{name}_head", head, 2)
    checks.not_empty(f"{name}_head", head)
    checks.shape(f"{name}_head", head, (hidden.shape[-1], head.shape[1]))
    checks.classes(f"{name}_head", head, 1)
    if bias is not None:
        checks.floating(f"{name}_bias", bias)
        checks.shape(f"{name}_bias", bias, (head.shape[1],))


def _tokens(hidden: Array, where: Array | None) -> Array:
    """Hidden states as `[tokens, width]`, those of masked tokens at 0."""
    hidden = jnp.asarray(hidden).reshape(-1, hidden.shape[-1])
    return hidden if where is None else jnp.where(where[:, None], hidden, 0)


def _block_length(chunk: int | None, tokens: int, vocabulary: int) -> int:
    if chunk is None:
        chunk = max(128, _BLOCK // tokens // 128 * 128)
    checks.count("vocabulary_chunk", chunk)
    return min(chunk, vocabulary)


def linear_softmax_kl(
    student_hidden: Array,
    student_head: Array,
    teacher_hidden: Array,
    teacher_head: Array,
    *,
    student_bias: Array | None = None,
    teacher_bias: Array | None = None,
    temperature: float | Array = 1.0,
    vocabulary_chunk: int | None = None,
    where: Array | None = None,
) -> Array:
    """Fused linear KD (Liger): `softmax_kl` of two heads, without full logits.

    `T^2 sum_k p_k (log p_k - log q_k)` for every token, with
    `q = softmax((student_hidden student_head + student_bias) / T)` and `p` alike from
    the teacher's. Value and gradients are those of `softmax_kl` on the full logits.
    The logits are made for `vocabulary_chunk` entries at a time, and once more in the
    backward pass, which adds about half to the time of the products. Beside what
    comes in and out, memory holds a few blocks of logits.

    Products sum in at least float32, whatever the dtype of the heads. The gradient
    of a network is computed only where it is needed: with the teacher's arguments
    stopped, none of theirs is. It supports reverse-mode differentiation once: no
    `jax.jvp`, no second derivatives.

    Args:
        student_hidden: `[..., width]`, what enters the student's last layer.
        student_head: `[width, vocabulary]`.
        teacher_hidden: `[..., width]` with the same leading axes; the widths may
            differ.
        teacher_head: `[width, vocabulary]`, of the same vocabulary.
        student_bias: `[vocabulary]`, or None.
        teacher_bias: `[vocabulary]`, or None. Minus infinity in both biases rules out
            an entry that only pads the vocabulary.
        temperature: a scalar above 0.
        vocabulary_chunk: how many entries of the vocabulary to take at a time; by
            default as many as make about 4 million logits, 4096 for 1024 tokens. It
            does not change the value. Shard heads along the width, if at all: along
            the vocabulary, every device would need every block.
        where: bool, broadcastable to the leading axes; the tokens that take part.
            The others get 0 and influence nothing.

    Returns:
        `[...]`, one value in nats per token, at least float32; `per_sequence` makes
        one per sequence of them. The weight is that of `token_kl`.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is not floating, or
            the temperature or the chunk is not above 0.

    Example:
        >>> student, teacher = jnp.eye(2, 3), jnp.array([[2.0, 1, 0], [0, 3, 1]])
        >>> hidden = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> values = linear_softmax_kl(hidden, student, hidden, teacher)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1, 2) 0.1186

    Reference:
        Hinton, Vinyals, Dean, 2015, arXiv 1503.02531 (the loss); Hsu et al., "Liger
        Kernel", 2024, arXiv 2410.10989 (heads and losses in chunks, for PyTorch).
    """
    _check_side("student", student_hidden, student_head, student_bias)
    _check_side("teacher", teacher_hidden, teacher_head, teacher_bias)
    leading, vocabulary = student_hidden.shape[:-1], student_head.shape[1]
    expected = (*leading, teacher_hidden.shape[-1])
    checks.shape("teacher_hidden", teacher_hidden, expected)
    checks.shape("teacher_head", teacher_head, (teacher_head.shape[0], vocabulary))
    checks.mask("where", where, leading)
    checks.temperature("temperature", temperature)
    if where is not None:
        where = jnp.broadcast_to(where, leading).reshape(-1)
    student, teacher = (_tokens(x, where) for x in (student_hidden, teacher_hidden))
    length = _block_length(vocabulary_chunk, student.shape[0], vocabulary)
    student = _Side(student, student_head, student_bias)
    teacher = _Side(teacher, teacher_head, teacher_bias)
    scale = jnp.asarray(temperature, _wide(*student, *teacher))
    inputs = jax.tree.map(jnp.asarray, _Inputs(student, teacher, scale))
    block = jnp.zeros((length, 0))
    # JAX has no sharding rule for blocks of a head and their gradients.
    divergences = collectives.on_auto_axes(_chunked_kl, inputs.student.hidden, 1)
    values = divergences(inputs, block)[:, 0]
    if where is not None:
        values = jnp.where(where, values, 0)
    return jnp.square(scale) * values.reshape(leading)
