"""Losses of a generator (DAFL): one-hot, activation and information entropy."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, tempered_log_softmax
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array
from kdjax.losses._logits.cross_entropy import hard_cross_entropy


def generator_one_hot(
    teacher_logits: Array, *, axis: int = -1, where: Array | None = None
) -> Array:
    """DAFL one-hot loss: cross-entropy of the teacher with its own top class.

    `-log p_c` with `p = softmax(teacher_logits)` and `c` the largest entry, a
    constant to the gradient.

    Args:
        teacher_logits: `[..., classes]` of generated examples.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. Its weight is 1
        (MNIST), 0.05 (CIFAR-10) or 0.5 (CIFAR-100).

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> values = generator_one_hot(jnp.array([[0.0, 0.0], [3.0, 0.0]]))
        >>> print(f"{values.mean():.4f}")
        0.3709

    Reference:
        Chen et al., "Data-Free Learning of Student Networks" (DAFL), 2019,
        arXiv 1904.01186.
    """
    checks.floating("teacher_logits", teacher_logits)
    checks.not_empty("teacher_logits", teacher_logits)
    return hard_cross_entropy(teacher_logits, teacher_logits, axis=axis, where=where)


def generator_class_logit(
    teacher_logits: Array, labels: Array, *, axis: int = -1
) -> Array:
    """Class logit: minus the teacher's logit of a chosen class.

    `-z_y`. Without a bound of its own: stands with a smoothness of the images
    (`image_total_variation`). The older scheme that `batch_norm_statistics` is
    compared with.

    Args:
        teacher_logits: `[..., classes]` of images in the making.
        labels: integer `[...]`, the wanted classes. Negative ones want none: 0.
        axis: the axis of the classes.

    Returns:
        `[...]`, one value per image in units of the logits, at least float32. Its
        weight is not in our references.

    Raises:
        ValueError: if the logits are empty or not floating, or the labels are not
            integer, of another shape, or not below the number of classes.

    Example:
        >>> logits = jnp.array([[1.0, 4.0], [2.0, 0.0]])
        >>> print(generator_class_logit(logits, jnp.array([1, 0])))
        [-4. -2.]

    Reference:
        Haroush et al., "The Knowledge Within: Methods for Data-Free Model
        Compression", 2019, arXiv 1912.01274.
    """
    checks.floating("teacher_logits", teacher_logits)
    checks.not_empty("teacher_logits", teacher_logits)
    axis = checks.axis(axis, "teacher_logits", teacher_logits)
    logits = jnp.moveaxis(promote(teacher_logits), axis, -1)
    checks.integer("labels", labels)
    checks.shape("labels", labels, logits.shape[:-1])
    checks.below("labels", labels, logits.shape[-1])
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(targets, -logits, 0), axis=-1)


def generator_activation(teacher_features: Array, *, where: Array | None = None):
    """DAFL activation loss: minus the mean absolute feature of the teacher.

    `-1/C sum_c |f_c|`, meant for features after a ReLU, pooled, before the classifier.

    Args:
        teacher_features: `[batch, ...]`.
        where: bool, broadcastable to the features; the entries that take part.

    Returns:
        `[batch]`, one value per example, never positive, at least float32. Its weight
        is 0.1 (MNIST), 0.01 (CIFAR-10) or 0.1 (CIFAR-100).

    Raises:
        ValueError: if the features are empty, of rank below 2 or not floating.

    Example:
        >>> print(generator_activation(jnp.array([[0.0, 2.0], [1.0, 1.0]])))
        [-1. -1.]

    Reference:
        Chen et al. (DAFL), 2019, arXiv 1904.01186.
    """
    checks.floating("teacher_features", teacher_features)
    checks.rank("teacher_features", teacher_features, 2, at_least=True)
    checks.not_empty("teacher_features", teacher_features)
    axes = range(1, teacher_features.ndim)
    return -masked_mean(jnp.abs(promote(teacher_features)), axes, where)


def generator_entropy(
    teacher_logits: Array,
    *,
    base: float = 10.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """DAFL information entropy: minus the entropy of the mean prediction.

    For the example i: `sum_k p_ik log_base pbar_k`, `pbar` the mean of the
    probabilities over the batch. The plain mean is `sum_k pbar_k log_base pbar_k`:
    -1 for ten classes that come up alike, 0 for one alone. Values mean the global
    batch.

    Args:
        teacher_logits: `[N, classes]` of the global batch of generated examples.
        base: of the logarithm, above 1. The paper has no base; the default is that
            of the authors' code, with which the weights were tuned.
        axis: the axis of the classes.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per example, never positive, at least float32. Its weight is
        5 (MNIST, CIFAR-10) or 20 (CIFAR-100).

    Raises:
        ValueError: if the logits are empty, not of rank 2 or not floating, the mask
            does not fit, or the base is not above 1.

    Example:
        >>> print(generator_entropy(jnp.array([[90.0, 0.0], [0.0, 90.0]]), base=2))
        [-1. -1.]

    Reference:
        Chen et al. (DAFL), 2019, arXiv 1904.01186.
    """
    checks.floating("teacher_logits", teacher_logits)
    checks.rank("teacher_logits", teacher_logits, 2)
    checks.not_empty("teacher_logits", teacher_logits)
    axis = checks.axis(axis, "teacher_logits", teacher_logits)
    checks.positive("base", base)
    if base <= 1:
        checks.refuse("base", "a number above 1", base)
    logits = jnp.moveaxis(promote(teacher_logits), axis, -1)
    if where is None:
        where = jnp.ones(logits.shape[0], bool)
    checks.mask("where", where, logits.shape[:1])
    checks.shape("where", where, logits.shape[:1])
    logits = jnp.where(where[:, None], logits, 0)
    log_probs = tempered_log_softmax(logits)
    # Over examples in log space too: a class that no example has a share in that
    # float32 can hold still has a finite logarithm.
    top = jnp.max(jnp.where(where[:, None], log_probs, -jnp.inf), 0)
    top = lax.stop_gradient(jnp.where(jnp.isneginf(top), 0, top))
    shifted = jnp.where(where[:, None], log_probs - top[None, :], 0)
    mean = masked_mean(jnp.exp(shifted), 0, where[:, None])
    mean = jnp.where(mean == 0, 1, mean)
    log_mean = jnp.log(mean) + top
    values = jnp.sum(jnp.exp(log_probs) * log_mean[None, :], -1) / math.log(base)
    return jnp.where(where, values, 0)
