"""Metrics of a student, example by example; the caller masks and averages.

Every metric takes logits `[batch, classes]` and integer labels `[batch]` in
`[0, classes)`, and returns `[batch]` float32. Sums run in float32 or wider. A shape
that does not fit raises ValueError naming the argument.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def accuracy(logits: Array, labels: Array) -> Array:
    """1 where the largest logit is the label's, else 0.

    Of equal logits the lowest class counts as the largest, as in `argmax`; a row with a
    NaN is a miss.
    """
    return top_k(logits, labels, 1)


def top_k(logits: Array, labels: Array, k: int) -> Array:
    """1 where the label is among the `k` largest logits, else 0.

    Of equal logits the lowest class comes first, so `k = 1` is `accuracy`; a row with a
    NaN and a label that names no class are misses. Raises ValueError naming `k` unless
    `1 <= k <= classes`.
    """
    _check(logits, labels)
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k: expected 1 <= k <= {classes} classes, got {k}")
    label_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    earlier = jnp.arange(classes)[None, :] < labels[:, None]
    ahead = (logits > label_logit) | ((logits == label_logit) & earlier)
    is_valid = ~jnp.isnan(logits).any(axis=-1) & (labels >= 0) & (labels < classes)
    return ((jnp.sum(ahead, axis=-1) < k) & is_valid).astype(jnp.float32)


def agreement(student_logits: Array, teacher_logits: Array) -> Array:
    """1 where student and teacher choose the same class, else 0.

    The fidelity of Stanton et al. 2021, "Does Knowledge Distillation Really Work?",
    arXiv 2106.05945. Ties and NaN in the student as in `accuracy`; a NaN in the teacher
    is a miss too.
    """
    _check_pair(student_logits, teacher_logits)
    choice = jnp.argmax(teacher_logits, axis=-1)
    is_valid = ~jnp.isnan(teacher_logits).any(axis=-1)
    return jnp.where(is_valid, accuracy(student_logits, choice), 0.0)


def teacher_kl(student_logits: Array, teacher_logits: Array) -> Array:
    """KL(teacher || student) in nats at temperature 1.

    `sum_c p_t (log p_t - log p_s)`, where classes with `p_t = 0` add nothing.
    """
    _check_pair(student_logits, teacher_logits)
    student, teacher = _log_softmax(student_logits), _log_softmax(teacher_logits)
    p = jnp.exp(teacher)
    terms = jnp.where(p > 0, p * (teacher - student), 0.0)
    return jnp.sum(terms, axis=-1).astype(jnp.float32)


def negative_log_likelihood(logits: Array, labels: Array) -> Array:
    """`-log softmax(logits)[label]`, in nats."""
    _check(logits, labels)
    log_prob = jnp.take_along_axis(_log_softmax(logits), labels[:, None], axis=-1)
    return -log_prob[:, 0].astype(jnp.float32)


def calibration_bins(
    logits: Array, labels: Array, where: Array, bins: int = 15
) -> dict[str, Array]:
    """Bins for `calibration_error`, as sums that add up over batches.

    where: `[batch]` bool, the examples that count.
    bins: number of equal intervals (low, high] of the confidence, the largest
        probability.

    Returns `[bins]` float32 "count", "confidence" and "hits" (as in `accuracy`).
    Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks",
    arXiv 1706.04599, equations 2 and 3.
    """
    _check(logits, labels)
    if where.shape != labels.shape or where.dtype != jnp.bool_:
        got = f"{where.dtype} {where.shape}"
        raise ValueError(f"where: expected bool {labels.shape}, got {got}")
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    confidence = jnp.exp(jnp.max(_log_softmax(logits), axis=-1)).astype(jnp.float32)
    bin_index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    parts = {
        "count": jnp.ones_like(confidence),
        "confidence": confidence,
        "hits": accuracy(logits, labels),
    }
    return {
        name: jax.ops.segment_sum(jnp.where(where, part, 0.0), bin_index, bins)
        for name, part in parts.items()
    }


def calibration_error(sums: Mapping[str, Array]) -> float:
    """Expected calibration error in [0, 1] from added `calibration_bins`.

    `sum_b count_b / n * |hits_b / count_b - confidence_b / count_b|`. Raises ValueError
    naming `sums` if no example was counted.
    """
    count, hits, confidence = (
        np.asarray(sums[name], np.float64) for name in ("count", "hits", "confidence")
    )
    if not count.sum() > 0:
        raise ValueError("sums: expected at least one example, got none")
    return float(np.abs(hits - confidence).sum() / count.sum())


def _log_softmax(logits: Array) -> Array:
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    return jax.nn.log_softmax(logits.astype(wide), axis=-1)


def _check(logits: Array, labels: Array) -> None:
    if logits.ndim != 2:
        raise ValueError(f"logits: expected [batch, classes], got {logits.shape}")
    integer = jnp.issubdtype(labels.dtype, jnp.integer)
    if labels.shape != logits.shape[:1] or not integer:
        expected = f"integer class ids {logits.shape[:1]}"
        got = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"labels: expected {expected}, got {got}")


def _check_pair(student_logits: Array, teacher_logits: Array) -> None:
    shape = student_logits.shape
    if len(shape) != 2:
        raise ValueError(f"student_logits: expected [batch, classes], got {shape}")
    if teacher_logits.shape != shape:
        got = teacher_logits.shape
        raise ValueError(f"teacher_logits: expected {shape} as student's, got {got}")
