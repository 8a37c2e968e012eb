"""Reconstruction of stored activations without data."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.layout import apply_mask
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_count, masked_mean
from kdjax.core.types import Array

RECONSTRUCTION_VARIANTS = ("all", "top")


def activation_reconstruction(
    features: Array,
    targets: Array,
    *,
    variant: str = "top",
    basis: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Data-free KD: squared distance between activations and stored ones.

    `"top"`: `1/C sum_c (relu(f_c) - relu(t_c))^2`, for the last layer alone.
    `"all"`: that divided by C again, to be summed over all layers: with the released
    code, a layer counts less the larger it is. The default is `"top"`.

    Where a fixed dropout mask was drawn with the targets, give it as `where`. The
    spectral modes compare `relu(f) @ basis` and `relu(t) @ basis`, K coefficients in
    place of C activations: of one layer (`"all"`), or of two layers side by side.

    Args:
        features: `[batch, ...]`, a layer of the teacher on the inputs in the making.
        targets: the same shape; see `sample_activations`.
        variant: `"top"` or `"all"`.
        basis: `[C, K]` over the last axis; see `graph_fourier_basis`.
        where: bool, broadcastable to the features; the entries that take part. With a
            basis the others count as activations of 0.

    Returns:
        `[batch]`, one value per input in squared units of the features, at least
        float32. The inputs minimize the mean, with weight 1.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than two axes, a dtype
            is not floating, the basis does not fit, or the variant is unknown.

    Example:
        >>> features, targets = jnp.array([[1.0, -5.0]]), jnp.array([[3.0, -1.0]])
        >>> print(activation_reconstruction(features, targets))
        [2.]

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535.
    """
    checks.one_of("variant", variant, RECONSTRUCTION_VARIANTS)
    checks.floating("features", features)
    checks.floating("targets", targets)
    checks.same_shape("targets", targets, "features", features)
    checks.rank("features", features, 2, at_least=True)
    checks.not_empty("features", features)
    checks.mask("where", where, features.shape)
    features, targets = promote_together(features, targets)
    keep = None if where is None else jnp.broadcast_to(where, features.shape)
    features, targets = (apply_mask(x, keep) for x in (features, targets))
    # NaN is not <= 0, and so is kept.
    gap = jnp.where(features <= 0, 0, features) - jnp.where(targets <= 0, 0, targets)
    if basis is not None:
        checks.floating("basis", basis)
        checks.rank("basis", basis, 2)
        checks.not_empty("basis", basis)
        checks.shape("basis", basis, (gap.shape[-1], basis.shape[1]))
        gap, basis = promote_together(gap, basis)
        gap, keep = jnp.matmul(gap, basis, precision=lax.Precision.HIGHEST), None
    axes = range(1, gap.ndim)
    value = masked_mean(jnp.square(gap), axes, keep)
    return value / masked_count(gap, axes, keep) if variant == "all" else value
