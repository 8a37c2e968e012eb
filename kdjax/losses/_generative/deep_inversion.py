"""DeepInversion: BatchNorm statistics, and competition with the student."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings
from kdjax.core.layout import apply_mask, as_positions, channel_axis
from kdjax.core.logits import divergence
from kdjax.core.numerics import (
    promote,
    promote_together,
    safe_norm,
    tempered_log_softmax,
)
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._features.vid import _at_least

STATISTICS_VARIANTS = ("l2", "kl")
COMPETITION_VARIANTS = ("described", "released")


def batch_norm_statistics(
    features: Array,
    *,
    mean: Array,
    variance: Array,
    variant: str = "l2",
    eps: float | Array = 1e-5,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """DeepInversion: distance between batch statistics and those of a BatchNorm.

    With mean `m` and (biased) variance `v` of each channel over batch and positions,
    and the stored `m0`, `v0`: `"l2"` is `|m - m0| + |v - v0|`, norms over the
    channels, as in DeepInversion. `"kl"` is `sum_c KL(N(m0, v0) || N(m, v))`, as in
    The Knowledge Within. Both are 0 where the statistics agree. The default is
    `"l2"`, the more used of the two.

    It compares no student with a teacher and its value belongs to the whole batch:
    every example is given the same one, so that the mean is the loss, and the batch
    is the global one as for the kernels of `RELATION`. Networks without BatchNorm
    store no such statistics.

    Args:
        features: `[batch, ..., channels]`, what goes into a BatchNorm of the teacher,
            of synthetic images. Take every BatchNorm and add.
        mean: `[channels]`, the stored mean.
        variance: `[channels]`, the stored variance. Flax stores the biased one, torch
            the unbiased.
        variant: `"l2"` or `"kl"`.
        eps: a lower bound of both variances in `"kl"`, a scalar above 0.
        axis: the axis of the channels; not the first.
        where: `[batch]` bool; the examples that take part. The others influence
            nothing and get 0.

    Returns:
        `[batch]`, the same value for all examples that take part, at least float32.
        DeepInversion weighs it with 10 on CIFAR-10 and 0.01 on ImageNet.

    Raises:
        ValueError: if shapes do not match, are empty or have fewer than two axes, a
            dtype is not floating, a variance is negative, or the variant is unknown.

    Example:
        >>> features = jnp.array([[-1.0], [3.0]])
        >>> mean, variance = jnp.array([0.0]), jnp.array([1.0])
        >>> print(batch_norm_statistics(features, mean=mean, variance=variance))
        [4. 4.]

    Reference:
        Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via
        DeepInversion", 2020, arXiv 1912.08795; Haroush et al., "The Knowledge Within:
        Methods for Data-Free Model Compression", 2020, arXiv 1912.01274.
    """
    checks.one_of("variant", variant, STATISTICS_VARIANTS)
    checks.positive("eps", eps)
    channels = _check_statistics(features, mean, variance, axis, where)
    rows = as_positions(promote(features), channels)
    rows, mean, variance = promote_together(rows, mean, variance)
    keep = None if where is None else jnp.asarray(where)[:, None, None]
    means, spread = _moments(rows, keep)
    if variant == "l2":
        value = safe_norm(means - mean) + safe_norm(spread - variance)
    else:
        floor = jnp.asarray(eps, rows.dtype)
        stored, spread = _at_least(variance, floor), _at_least(spread, floor)
        ratio = (stored + jnp.square(means - mean)) / spread
        value = jnp.sum(jnp.log(spread / stored) + ratio - 1) / 2
    value = jnp.broadcast_to(value, rows.shape[:1])
    return value if where is None else jnp.where(where, value, 0)


def _check_statistics(features, mean, variance, axis, where) -> int:
    checks.floating("features", features)
    checks.rank("features", features, 2, at_least=True)
    checks.not_empty("features", features)
    channels = channel_axis(axis, "features", features)
    for name, x in (("mean", mean), ("variance", variance)):
        checks.floating(name, x)
        checks.shape(name, x, (features.shape[channels],))
    checks.holds("variance", lambda np, v: v >= 0, "numbers of at least 0", variance)
    if where is not None:
        checks.mask("where", where, features.shape[:1])
        checks.shape("where", where, features.shape[:1])
    return channels


def _moments(rows: Array, keep: Array | None) -> tuple[Array, Array]:
    """Mean and biased variance of every channel, in two passes."""
    rows = apply_mask(rows, keep)
    mean = masked_mean(rows, (0, 1), keep)
    spread = masked_mean(jnp.square(rows - mean[None, None, :]), (0, 1), keep)
    return mean, spread


def _competition(student: Array, teacher: Array, variant: str) -> Array:
    """Jensen-Shannon divergence of log-probabilities, or what the released code has."""
    if variant == "described":
        middle = jnp.logaddexp(student, teacher) - jnp.log(
            jnp.asarray(2, student.dtype)
        )
        return (divergence(student, middle) + divergence(teacher, middle)) / 2
    sides = [jnp.exp(x) for x in (student, teacher)]
    sides.append((sides[0] + sides[1]) / 2)
    p, q, m = (jnp.log(jnp.clip(x, 0.01, 0.99)) for x in sides)
    return (divergence(m, p) + divergence(m, q)) / 2


def generator_competition(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 3.0,
    variant: str = "described",
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Adaptive DeepInversion (ADI): one minus the JS divergence of the networks.

    `1 - J_i`, the mean clipped to [0, 1], where for the example i

    - `"described"`: `J` is the Jensen-Shannon divergence of the predictions at `T`, at
      most log 2. The default: it has a gradient everywhere.
    - `"released"`: `(KL(m || p) + KL(m || q)) / 2`, in the other direction, with `p`,
      `q` and their mean `m` clipped to [0.01, 0.99]. A prediction beyond that has no
      gradient, and a mean of `J` above 1 gives 0 throughout.

    There is no `T^2`. Add `DeepInversion`'s other terms.

    Args:
        student_logits: `[N, classes]` of the images in the making.
        teacher_logits: the same shape.
        temperature: `T`, a scalar above 0.
        variant: `"described"` or `"released"`.
        axis: the axis of the classes.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, at least float32. Its mean is 1 where the two
        agree. The weight of the README is 0.2.

    Raises:
        ValueError: as in `softmax_kl`, or if the logits are not of rank 2 or the
            variant is unknown.

    Example:
        >>> student, teacher = jnp.array([[9.0, 0.0]]), jnp.array([[0.0, 9.0]])
        >>> print(f"{generator_competition(student, teacher).mean():.4f}")
        0.4977

    Reference:
        Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via
        DeepInversion", 2020, arXiv 1912.08795.
    """
    checks.one_of("variant", variant, COMPETITION_VARIANTS)
    checks.temperature("temperature", temperature)
    checks.matching_pair("logits", student_logits, teacher_logits)
    names = ("student_logits", "teacher_logits")
    student, teacher, valid = embeddings(
        student_logits, teacher_logits, axis, where, names
    )
    log_student, log_teacher = (
        tempered_log_softmax(x, temperature) for x in (student, teacher)
    )
    apart = _competition(log_student, log_teacher, variant)
    mean = masked_mean(apart, where=valid)
    clipped = jnp.where(mean >= 1, 0, jnp.where(mean <= 0, 1, 1 - apart))
    return jnp.where(valid, clipped, 0)
