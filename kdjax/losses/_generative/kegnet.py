"""KegNet: diversity of generated images."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings
from kdjax.core.numerics import safe_abs
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def generator_diversity(
    images: Array, noise: Array, *, where: Array | None = None
) -> Array:
    """KegNet diversity: distances of images, weighted by those of their noise.

    `exp(-1/N^2 sum_ij a_ij b_ij)` with `a_ij` the mean absolute difference of two
    images and `b_ij` the mean squared difference of their noise: 1 where all images
    coincide, nearer to 0 the more they differ where their noise does.

    Its value belongs to the whole batch: every example is given the same one, so
    that the mean is the loss, and the batch is the global one. Time grows with
    `N^2`; memory does not.

    Args:
        images: `[N, ...]`, generated.
        noise: `[N, ...]`, what they were generated from.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, the same value in (0, 1] for all examples that take part, at least
        float32. The released weight is 0 (MNIST, tables), 1 (SVHN) or 10 (Fashion),
        with 1 for the decoder's `hint_l2` on the noise.

    Raises:
        ValueError: if an array is empty, of rank below 2 or not floating, or the
            numbers of examples differ.

    Example:
        >>> noise = jnp.array([[0.0, 0.0], [1.0, 1.0]])
        >>> images = jnp.array([[0.0, 0.0], [2.0, 0.0]])
        >>> print(f"{generator_diversity(images, noise).mean():.4f}")
        0.6065

    Reference:
        Yoo, Cho, Kim, Kang, "Knowledge Extraction with No Observable Data", NeurIPS
        2019 (no arXiv version).
    """
    for name, x in (("images", images), ("noise", noise)):
        checks.floating(name, x)
        checks.rank(name, x, 2, at_least=True)
        checks.not_empty(name, x)
    checks.shape("noise", noise, (images.shape[0], *noise.shape[1:]))
    images, noise = (x.reshape(x.shape[0], -1) for x in (images, noise))
    names = ("images", "noise")
    rows, noise, valid = embeddings(images, noise, where=where, names=names)

    @jax.checkpoint
    def apart(one: tuple[Array, Array, Array]) -> Array:
        image, code, takes_part = one
        far = jnp.mean(safe_abs(rows - image[None]), 1)
        far = far * jnp.mean(jnp.square(noise - code[None]), 1)
        return masked_mean(far, where=valid & takes_part)

    mean = masked_mean(lax.map(apart, (rows, noise, valid)), where=valid)
    return jnp.where(valid, jnp.exp(-mean), 0)
