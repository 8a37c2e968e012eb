"""Divergences from a teacher stored as top-k log-probabilities."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from kdjax.core import checks
from kdjax.core.logits import divergence, mark_indices
from kdjax.core.numerics import (
    divide_finite,
    promote_together,
    tempered_log_softmax,
)
from kdjax.core.reduce import masked_count
from kdjax.core.types import Array
from kdjax.losses._logits.kl import mixture_divergence
from kdjax.losses._sequences.tokens import DIRECTIONS

TAILS = ("bucket", "renormalize", "uniform")


def _nothing(np: Any, log_probs: Any) -> Any:
    return log_probs.astype(np.float32) == -np.inf


def _distinct(np: Any, indices: Any, log_probs: Any) -> Any:
    """Mask of the indices that are the first of their kind in a row, or of no mass."""
    padding_ids = -1 - np.arange(indices.shape[-1], dtype=np.int32)
    ids = np.where(_nothing(np, log_probs), padding_ids, indices.astype(np.int32))
    order = np.argsort(ids, axis=-1, stable=True)
    ids = np.take_along_axis(ids, order, axis=-1)
    first = np.concatenate(
        [np.ones_like(ids[..., :1], bool), ids[..., 1:] != ids[..., :-1]], axis=-1
    )
    return np.take_along_axis(first, np.argsort(order, axis=-1), axis=-1)


def _check_top_k(student, teacher, indices, normalizer):
    checks.floating("student_logits", student)
    checks.floating("teacher_log_probs", teacher)
    checks.not_empty("student_logits", student)
    checks.rank("student_logits", student, 1, at_least=True)
    checks.rank("teacher_log_probs", teacher, student.ndim)
    leading, kept = student.shape[:-1], min(teacher.shape[-1], student.shape[-1])
    checks.shape("teacher_log_probs", teacher, (*leading, max(kept, 1)))
    checks.integer("teacher_indices", indices)
    checks.shape("teacher_indices", indices, teacher.shape)
    classes = student.shape[-1]
    checks.holds(
        "teacher_indices",
        lambda np, index, log_prob: (
            ((index >= 0) & (index < classes)) | _nothing(np, log_prob)
        ),
        f"indices in [0, {classes})",
        indices,
        teacher,
    )
    expected = "every class at most once in a row"
    checks.holds("teacher_indices", _distinct, expected, indices, teacher)
    # float16 rounds the logarithm of a probability near 1 to a little above 0.
    checks.holds(
        "teacher_log_probs",
        lambda np, x: ~(x > 0.01),
        "logarithms of probabilities, at most 0",
        teacher,
    )
    if normalizer is not None:
        checks.floating("teacher_log_normalizer", normalizer)
        checks.shape("teacher_log_normalizer", normalizer, leading)


def _lse(x: Array) -> Array:
    """Log of the sum of exponentials along the last axis; the lowest where empty."""
    top = lax.stop_gradient(jnp.max(x, -1, keepdims=True))
    top = jnp.where(jnp.isneginf(top), 0, top)
    total = jnp.sum(jnp.exp(x - top), -1)
    none = total == 0
    return jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, total)) + top[..., 0])


def _log_rest(log_total: Array) -> Array:
    """`log(1 - exp(log_total))`, minus infinity where nothing is left."""
    full = log_total >= 0
    rest = -jnp.expm1(jnp.where(full, -1, log_total))
    return jnp.where(full, -jnp.inf, jnp.log(rest))


def _log_tail(log_teacher, normalizer, temperature, rest):
    """The top at temperature T, and the log of the tail's mass, of `rest` classes."""
    # Rounded log-probabilities may sum to more than 1.
    total = _lse(log_teacher)
    log_teacher = log_teacher - jnp.maximum(total, 0)[..., None]
    if normalizer is None:
        tail = _log_rest(_lse(log_teacher))
        count = jnp.log(rest)
        # A uniform tail at temperature T: its log-mass a class is divided by T.
        tail = divide_finite(tail - count, temperature) + count
        log_teacher = divide_finite(log_teacher, temperature)
        both = jnp.logaddexp(_lse(log_teacher), tail)
        return log_teacher - both[..., None], tail - both
    log_teacher = divide_finite(log_teacher, temperature) - normalizer[..., None]
    total = _lse(log_teacher)
    log_teacher = log_teacher - jnp.maximum(total, 0)[..., None]
    return log_teacher, _log_rest(_lse(log_teacher))


class _Part(NamedTuple):
    """Log-probabilities of some of the classes, or of their sum as one class.

    teacher, student, where: of one shape, classes last. `where` has those that take
    part; the student's others are finite, so that no gradient is NaN.
    """

    teacher: Array
    student: Array
    where: Array


def _part(teacher: Array, student: Array, where: Array) -> _Part:
    return _Part(teacher, jnp.where(where, student, 0), where)


def _take(x: Array, indices: Array) -> Array:
    """Entries of the last axis; NaN at an index out of range."""
    return jnp.take_along_axis(x, indices, -1, mode="fill")


def _compare(
    divide: Callable[[_Part], Array],
    student_logits: Array,
    teacher_log_probs: Array,
    *,
    teacher_indices: Array,
    teacher_log_normalizer: Array | None,
    temperature: float | Array,
    tail: str,
    floor: bool | Array,
) -> Array:
    """`T^2` times the sum of a divergence over the parts of all classes.

    floor: whether the tail has a mass of at least the rounding of 1.
    """
    checks.one_of("tail", tail, TAILS)
    checks.temperature("temperature", temperature)
    _check_top_k(
        student_logits, teacher_log_probs, teacher_indices, teacher_log_normalizer
    )
    checks.classes("student_logits", student_logits, -1)
    student, teacher = promote_together(student_logits, teacher_log_probs)
    classes = student.shape[-1]
    indices = jnp.asarray(teacher_indices).astype(jnp.int32)
    # A negative index would count from the end; out of range is what it is.
    indices = jnp.where(indices < 0, classes, indices)
    scale = jnp.asarray(temperature, student.dtype)
    if tail == "renormalize":
        parts = [_renormalized(student, teacher, indices, scale)]
    elif student.shape == teacher.shape:
        parts = [_without_tail(student, teacher, indices, scale)]
    else:
        normalizer = _normalizer(teacher_log_normalizer, temperature, tail, scale)
        parts = _with_tail(student, teacher, indices, normalizer, scale, tail, floor)
    return jnp.square(scale) * sum(map(divide, parts[1:]), divide(parts[0]))


def _renormalized(student, teacher, indices, temperature) -> _Part:
    """The kept classes alone."""
    kept = ~jnp.isneginf(teacher)
    log_teacher = tempered_log_softmax(teacher, temperature, -1, kept)
    log_student = tempered_log_softmax(_take(student, indices), temperature, -1, kept)
    return _part(log_teacher, log_student, kept)


def _without_tail(student, teacher, indices, temperature) -> _Part:
    """A teacher of which no class is left out; one of no mass may name none."""
    log_student = tempered_log_softmax(student, temperature)
    log_teacher = tempered_log_softmax(teacher, temperature)
    named = ~jnp.isneginf(teacher) | (indices < student.shape[-1])
    return _part(log_teacher, _take(log_student, indices), named)


def _with_tail(
    student, teacher, indices, normalizer, temperature, tail, floor
) -> list[_Part]:
    """The kept classes, and all others one by one or as one."""
    log_student = tempered_log_softmax(student, temperature)
    kept = ~jnp.isneginf(teacher)
    # A class that is kept with no mass is one of the others.
    indices = jnp.where(kept, indices, student.shape[-1])
    # The student's padding of a vocabulary has no share of the teacher's tail.
    in_tail = ~mark_indices(indices, student.shape[-1]) & ~jnp.isneginf(student)
    count = masked_count(student, -1, in_tail)
    log_top, log_rest = _log_tail(teacher, normalizer, temperature, count)
    # One minus the kept mass has no more digits than the rounding of 1.
    least = jnp.maximum(log_rest, math.log(jnp.finfo(student.dtype).eps))
    log_rest = jnp.where(floor, least, log_rest)[..., None]
    top = _part(log_top, _take(log_student, indices), kept)
    if tail == "bucket":
        student_rest = _lse(jnp.where(in_tail, log_student, -jnp.inf))[..., None]
        rest = _part(log_rest, student_rest, jnp.any(in_tail, -1, keepdims=True))
    else:
        each = jnp.broadcast_to(log_rest - jnp.log(count)[..., None], student.shape)
        rest = _part(each, log_student, in_tail)
    return [top, rest]


def _normalizer(normalizer, temperature, tail, scale) -> Array | None:
    if normalizer is not None:
        return jnp.asarray(normalizer).astype(scale.dtype)
    unit = not isinstance(temperature, Tracer) and float(temperature) == 1
    if tail == "bucket" and not unit:
        reason = "tail='bucket' needs it unless the temperature is the number 1"
        checks.refuse("teacher_log_normalizer", f"an array ({reason})", None)
    return None


def top_k_kl(
    student_logits: Array,
    teacher_log_probs: Array,
    *,
    teacher_indices: Array,
    teacher_log_normalizer: Array | None = None,
    temperature: float | Array = 1.0,
    direction: str = "forward",
    tail: str = "uniform",
) -> Array:
    """Sparse KD: KL divergence to a teacher stored as top-k log-probabilities.

    `T^2 KL(p || q)`, or `T^2 KL(q || p)` in the `"reverse"` direction, with
    `q = softmax(student_logits / T)`. Here `p` puts the kept log-probabilities on
    their classes and for the rest of its mass follows `tail`:

    - `"uniform"`: spread evenly over the classes not kept. The default: it says
      something of every class, and is close to the full divergence where the
      teacher's tail is flat.
    - `"bucket"`: compared as one class, the sum of all not kept. A lower bound of
      the full divergence that fixes the tail's mass and leaves its shape free.
    - `"renormalize"`: student and teacher are restricted to the kept classes. The
      common form (tunix, MaxText); nothing keeps the student from putting mass
      elsewhere.

    With K equal to the number of classes all three are `softmax_kl`, or
    `reverse_softmax_kl`.

    In the reverse direction the rest has a mass of at least the rounding of 1 (1e-7 in
    float32): the difference of 1 and the kept mass has no more digits, and a mass of 0
    would cost infinitely much.

    An index out of range that has any mass is refused, and so is one that repeats;
    traced, the former gives NaN, and under `jax.experimental.checkify.checkify` both
    an error. Entries of log-probability minus infinity cost nothing, whatever their
    index (-1, say): so rows may keep fewer than K, or none (`"renormalize"` then is
    0). A class that is not kept and that the student rules out with minus infinity,
    such as the padding of a vocabulary, has no part in the tail. The classes are the
    last axis, and there is no `where`: a value per token is reduced under a mask by
    `per_sequence`.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_log_probs: `[..., K]`, natural logarithms of the teacher's
            probabilities at temperature 1, of any order. Should they sum to more
            than 1 they are scaled to 1.
        teacher_indices: integer `[..., K]`, the classes they belong to.
        teacher_log_normalizer: `[...]`, the log of the sum over all classes of the
            teacher's probabilities to the power 1/T. `"bucket"` needs it at every
            temperature but 1 (there it is 0); `"uniform"` has the tail's mass at T
            from it, and without it tempers the spread tail.
        temperature: a scalar above 0.
        direction: `"forward"` or `"reverse"`.
        tail: `"uniform"`, `"bucket"` or `"renormalize"`.

    Returns:
        `[...]`, one value in nats per example or token, at least float32. Its weight
        is that of `softmax_kl`.

    Raises:
        ValueError: if shapes do not match or are empty, a dtype is wrong, an index
            names no class or repeats, the tail is unknown, the temperature is not
            above 0, or `"bucket"` lacks the normalizer.

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> kept = jnp.log(jnp.array([[0.7, 0.2], [0.8, 0.1]]))
        >>> indices = jnp.array([[0, 1], [1, 2]])
        >>> for tail in ("uniform", "bucket", "renormalize"):
        ...     values = top_k_kl(student, kept, teacher_indices=indices, tail=tail)
        ...     print(f"{values.mean():.4f}")
        0.7874
        0.7874
        0.3711

    Reference:
        Hinton, Vinyals, Dean, 2015, arXiv 1503.02531 (the divergence); Anshumann et
        al., "Sparse Logit Sampling", 2025, arXiv 2503.16870 (the bias of top-K).
    """
    checks.one_of("direction", direction, DIRECTIONS)
    forward = direction == "forward"

    def divide(part: _Part) -> Array:
        first, second = part.teacher, part.student
        if not forward:
            first, second = second, first
        return divergence(first, second, -1, part.where)

    return _compare(
        divide,
        student_logits,
        teacher_log_probs,
        teacher_indices=teacher_indices,
        teacher_log_normalizer=teacher_log_normalizer,
        temperature=temperature,
        tail=tail,
        floor=not forward,
    )


def top_k_jsd(
    student_logits: Array,
    teacher_log_probs: Array,
    *,
    teacher_indices: Array,
    teacher_log_normalizer: Array | None = None,
    beta: float | Array = 0.5,
    temperature: float | Array = 1.0,
    tail: str = "uniform",
) -> Array:
    """Sparse GKD: generalized Jensen-Shannon divergence (JSD) to a top-k teacher.

    `T^2 (b KL(p || m) + (1 - b) KL(q || m))` with `m = b p + (1 - b) q`, as in
    `jensen_shannon`, and `p` as in `top_k_kl`: `b = 0` is `top_k_kl`, `b = 1` its
    reverse direction. With K equal to the number of classes it is `jensen_shannon`.

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_log_probs: as in `top_k_kl`, `[..., K]`.
        teacher_indices: as in `top_k_kl`.
        teacher_log_normalizer: as in `top_k_kl`.
        beta: `b`, the teacher's share of the mixture, a scalar in [0, 1].
        temperature: a scalar above 0.
        tail: `"uniform"`, `"bucket"` or `"renormalize"`.

    Returns:
        `[...]`, one value in nats per example or token, at least float32. Its weight
        is that of `jensen_shannon`.

    Raises:
        ValueError: as in `top_k_kl`, or if `beta` lies outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> kept = jnp.log(jnp.array([[0.7, 0.2], [0.8, 0.1]]))
        >>> indices = jnp.array([[0, 1], [1, 2]])
        >>> values = top_k_jsd(student, kept, teacher_indices=indices)
        >>> print(f"{values.mean():.4f}")
        0.1735

    Reference:
        Agarwal et al., "On-Policy Distillation of Language Models: Learning from
        Self-Generated Mistakes" (GKD), 2024, arXiv 2306.13649.
    """

    def divide(part: _Part) -> Array:
        return mixture_divergence(part.student, part.teacher, beta, -1, part.where)

    return _compare(
        divide,
        student_logits,
        teacher_log_probs,
        teacher_indices=teacher_indices,
        teacher_log_normalizer=teacher_log_normalizer,
        temperature=temperature,
        tail=tail,
        floor=beta == 1,
    )
