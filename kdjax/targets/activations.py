"""Activations to aim at where there is no data."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together
from kdjax.core.types import Array

SAMPLE_VARIANTS = ("described", "released")


def sample_activations(
    key: Array,
    mean: Array,
    covariance: Array,
    *,
    count: int,
    variant: str = "described",
    jitter: float | Array = 1e-6,
) -> Array:
    """Activations drawn from a normal distribution with stored statistics.

    `"described"`: `mean + L g` with `L` the Cholesky factor of the covariance, and `g`
    standard normal: draws with that covariance. Kept from fewer examples than there
    are channels, it is singular, and rounding makes it worse by some part of its
    largest eigenvalue; so `jitter` times its trace is added to its diagonal. (To
    variances of independent channels: `jitter` times their mean.)
    `"released"`: `mean + covariance g`, as the authors' code has it, whose draws have
    the covariance squared. The default is the first.

    Args:
        key: a random key.
        mean: `[channels]`.
        covariance: `[channels, channels]`, or `[channels]` variances of independent
            channels.
        count: how many to draw, at least 1.
        variant: `"described"` or `"released"`.
        jitter: a scalar above 0, relative as said (what is added is at least 1e-30);
            of no effect on `"released"`.

    Returns:
        `[count, channels]`, at least float32.

    Raises:
        ValueError: if shapes do not fit or are empty, a dtype is not floating, the
            variant is unknown, or a number is not above 0.

    Example:
        >>> draws = sample_activations(
        ...     jax.random.key(0), jnp.zeros(2), jnp.array([4.0, 0.0]), count=1000
        ... )
        >>> print(draws.shape, 1.8 < draws[:, 0].std() < 2.2)
        (1000, 2) True

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535.
    """
    checks.one_of("variant", variant, SAMPLE_VARIANTS)
    checks.count("count", count)
    checks.positive("jitter", jitter)
    checks.floating("mean", mean)
    checks.rank("mean", mean, 1)
    checks.not_empty("mean", mean)
    checks.floating("covariance", covariance)
    channels = mean.shape[0]
    checks.shape("covariance", covariance, (channels,) * (covariance.ndim or 2))
    mean, factor = promote_together(mean, covariance)
    noise = jax.random.normal(key, (count, channels), mean.dtype)
    scale = jnp.mean(factor) if factor.ndim == 1 else jnp.trace(factor)
    extra = jnp.maximum(jnp.asarray(jitter, mean.dtype) * scale, 1e-30)
    if factor.ndim == 1:
        factor = factor if variant == "released" else jnp.sqrt(factor + extra)
        return mean[None] + factor[None] * noise
    if variant == "described":
        factor = jnp.linalg.cholesky(
            factor + extra * jnp.eye(channels, dtype=mean.dtype)
        )
    moved = jnp.matmul(noise, factor.T, precision=lax.Precision.HIGHEST)
    return mean[None] + moved


def _mirrored(np: Any, adjacency: Any) -> Any:
    """Mask of the entries that equal those across the diagonal, but for rounding."""
    return np.abs(adjacency - adjacency.T) <= 1e-4 * np.max(adjacency)


def graph_fourier_basis(adjacency: Array, *, modes: int | None = None) -> Array:
    """Graph Fourier basis: the smoothest patterns on a graph of neurons.

    The eigenvectors of the Laplacian `L = diag(A 1) - A` with the smallest
    eigenvalues, in rising order: `activations @ basis` are the graph Fourier
    coefficients. With as many modes as neurons nothing is lost. Eigenvectors of equal
    eigenvalues and all signs are a choice of the solver; squared distances between
    coefficients do not depend on it, where no group of equal ones is cut.

    Which graph is meant is nowhere described (the released code leaves the spectral
    modes open); the size of the correlations between activations is one.

    Args:
        adjacency: `[C, C]`, symmetric and not negative, taken as a constant. The
            diagonal is of no effect.
        modes: how many; all C by default.

    Returns:
        `[C, modes]` with orthonormal columns, at least float32.

    Raises:
        ValueError: if the adjacency is empty, not square, not floating, negative or
            not symmetric, or `modes` is not in [1, C].

    Example:
        >>> chain = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> print(jnp.abs(graph_fourier_basis(chain, modes=1).T).round(3))
        [[0.577 0.577 0.577]]

    Reference:
        Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural
        Networks", 2017, arXiv 1710.07535; Shuman et al., "The Emerging Field of Signal
        Processing on Graphs", 2013, arXiv 1211.0053.
    """
    checks.floating("adjacency", adjacency)
    checks.rank("adjacency", adjacency, 2)
    checks.not_empty("adjacency", adjacency)
    neurons = adjacency.shape[0]
    checks.shape("adjacency", adjacency, (neurons, neurons))
    checks.count("modes", neurons if modes is None else modes, most=neurons)
    finite = "finite values of at least 0"
    checks.holds(
        "adjacency", lambda np, a: np.isfinite(a) & (a >= 0), finite, adjacency
    )
    checks.holds("adjacency", _mirrored, "a symmetric matrix", adjacency)
    adjacency = lax.stop_gradient(promote(adjacency))
    laplacian = jnp.diag(jnp.sum(adjacency, axis=1)) - adjacency
    return jnp.linalg.eigh(laplacian)[1][:, :modes]
