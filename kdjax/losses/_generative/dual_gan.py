"""Losses of a generator for teachers with many labels (Dual-GAN)."""

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def _check_labels_logits(logits: Array, axis: int, where: Array | None) -> Array:
    checks.floating("teacher_logits", logits)
    checks.not_empty("teacher_logits", logits)
    checks.axis(axis, "teacher_logits", logits)
    checks.mask("where", where, logits.shape)
    logits = promote(logits)
    if where is None:
        return logits
    return jnp.where(jnp.broadcast_to(where, logits.shape), logits, 0)


def generator_multi_label(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """Dual-GAN one-hot loss: cross-entropy of multi-label outputs with decisions.

    `-1/K sum_k [t_k log y_k + (1 - t_k) log(1 - y_k)]` with `y = sigmoid(z)` and
    `t_k = 1` where `y_k >= 1/2`: it should be sure of every label.

    Args:
        teacher_logits: `[..., labels]` of generated examples, before any sigmoid.
        axis: the axis of the labels.
        where: bool, broadcastable to the logits; the labels that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32; with weight 1.

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> print(f"{generator_multi_label(jnp.array([[0.0, 9.0]])).mean():.4f}")
        0.3466

    Reference:
        Ye et al., "Data-Free Knowledge Amalgamation via Group-Stack Dual-GAN", 2020,
        arXiv 2003.09088.
    """
    logits = _check_labels_logits(teacher_logits, axis, where)
    # At 0 the decision is yes, and the gradient that of yes.
    cost = -jax.nn.log_sigmoid(jnp.where(logits >= 0, logits, -logits))
    return masked_mean(cost, axis, where)


def generator_sparsity(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """Dual-GAN sparsity: mean probability of the labels.

    `1/K sum_k sigmoid(z_k)`.

    Args:
        teacher_logits: `[..., labels]` of generated examples, before any sigmoid.
        axis: the axis of the labels.
        where: bool, broadcastable to the logits; the labels that take part.

    Returns:
        `[...]`, one value per example in [0, 1], at least float32. Its weight is not
        in our references.

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> print(generator_sparsity(jnp.array([[0.0, 0.0], [-99.0, 99.0]])))
        [0.5 0.5]

    Reference:
        Ye et al., "Data-Free Knowledge Amalgamation via Group-Stack Dual-GAN", 2020,
        arXiv 2003.09088.
    """
    logits = _check_labels_logits(teacher_logits, axis, where)
    return masked_mean(jax.nn.sigmoid(logits), axis, where)
