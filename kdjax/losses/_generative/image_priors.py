"""Image priors of DeepInversion: total variation and L2 norm."""

import math

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote, safe_abs, safe_sqrt
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array

NORM_VARIANTS = ("batch", "example")
TOTAL_VARIANTS = (*NORM_VARIANTS, "l1")


def _check_images(
    images: Array,
    variant: str,
    rank: int,
    where: Array | None,
    variants: tuple[str, ...] = NORM_VARIANTS,
):
    checks.one_of("variant", variant, variants)
    checks.floating("images", images)
    checks.rank("images", images, rank, at_least=rank != 4)
    checks.not_empty("images", images)
    if where is not None:
        checks.mask("where", where, images.shape[:1])
        checks.shape("where", where, images.shape[:1])


def _norms(x: Array, variant: str, where: Array | None) -> Array:
    """Norms per example, or shares of the batch's whose mean is the norm of all."""
    square = masked_sum(jnp.square(x), range(1, x.ndim))
    if variant == "example":
        return safe_sqrt(square)
    whole = safe_sqrt(masked_sum(square, where=where))
    # Below this the square of the norm, in the gradient, would underflow.
    return square / jnp.where(whole < 1e-18, 1, whole)


def _mean_absolute(x: Array) -> Array:
    """Mean absolute value of each example; 0 where an image is too small for any."""
    total = jnp.sum(safe_abs(x), tuple(range(1, x.ndim)))
    return total / max(1, math.prod(x.shape[1:]))


def _finish(values: Array, variant: str, where: Array | None) -> Array:
    counted = jnp.ones(values.shape, bool) if where is None else where
    if variant == "batch":
        values = values * jnp.sum(counted).astype(values.dtype)
    return jnp.where(counted, values, 0)


def image_total_variation(
    images: Array, *, variant: str = "batch", where: Array | None = None
) -> Array:
    """Total variation (TV): norms of the differences to four neighbors.

    `sum_d |x - shift_d(x)|` over the neighbors to the right, below, and the two
    diagonals, each a Euclidean norm. `"batch"`: norms over the whole batch, as in the
    authors' code; an example's value is its share of the squares times the number of
    examples, so that the plain mean is that number, and means the global batch.
    `"example"`: a norm for each example by itself. `"l1"`: the means of the absolute
    differences, added over the four neighbors, as in their ImageNet code. The first
    two differ by about the root of the batch size, so a weight belongs to its variant.
    The default is `"batch"`.

    Args:
        images: `[batch, height, width, channels]`.
        variant: `"batch"`, `"example"` or `"l1"`.
        where: `[batch]` bool; the examples that take part. The others influence
            nothing and get 0.

    Returns:
        `[batch]`, one value per example, at least float32. Its weight is 2.5e-5 with
        batches of 256 (CIFAR-10).

    Raises:
        ValueError: if the images are empty, not of rank 4 or not floating, or the
            variant is unknown.

    Example:
        >>> image = jnp.array([[0.0, 3.0], [0.0, 3.0]])[None, :, :, None]
        >>> print(f"{image_total_variation(image)[0]:.4f}")
        10.2426
        >>> print(image_total_variation(image, variant="l1"))
        [9.]

    Reference:
        Yin et al., "Dreaming to Distill" (DeepInversion), 2020, arXiv 1912.08795.
    """
    _check_images(images, variant, 4, where, TOTAL_VARIANTS)
    x = promote(images)
    if where is not None:
        x = jnp.where(where[:, None, None, None], x, 0)
    gaps = (
        x[:, :, 1:] - x[:, :, :-1],
        x[:, 1:] - x[:, :-1],
        x[:, 1:, 1:] - x[:, :-1, :-1],
        x[:, 1:, :-1] - x[:, :-1, 1:],
    )
    if variant == "l1":
        return sum(
            (_mean_absolute(gap) for gap in gaps),
            jnp.zeros(x.shape[:1], x.dtype),
        )
    values = sum((_norms(gap, variant, where) for gap in gaps), jnp.zeros((), x.dtype))
    return _finish(values, variant, where)


def image_l2(
    images: Array, *, variant: str = "example", where: Array | None = None
) -> Array:
    """Image L2: the Euclidean norm of the images, not squared.

    `"example"`: of each by itself, as in the authors' ImageNet code. `"batch"`: of
    the whole batch, as in their CIFAR-10 code; see `image_total_variation`.

    Args:
        images: `[batch, ...]`.
        variant: `"example"` or `"batch"`.
        where: `[batch]` bool; the examples that take part.

    Returns:
        `[batch]`, one value per example, at least float32. Its weight is 0 on
        CIFAR-10.

    Raises:
        ValueError: if the images are empty, of rank below 2 or not floating, or the
            variant is unknown.

    Example:
        >>> print(image_l2(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
        [5. 0.]

    Reference:
        Yin et al. (DeepInversion), 2020, arXiv 1912.08795.
    """
    _check_images(images, variant, 2, where)
    x = promote(images)
    if where is not None:
        x = jnp.where(jnp.expand_dims(where, range(1, x.ndim)), x, 0)
    return _finish(_norms(x, variant, where), variant, where)
