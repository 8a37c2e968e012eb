"""Hashing: codes that agree with pairwise similarity labels."""

import jax.numpy as jnp
from jax import nn

from kdjax.core import checks
from kdjax.core.examples import gram
from kdjax.core.numerics import promote_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

HASHING_VARIANTS = ("described", "released")


def hashing_likelihood(
    student_codes: Array,
    teacher_similarity: Array,
    *,
    other_codes: Array,
    scale: float | Array = 0.5,
    variant: str = "described",
) -> Array:
    """Hashing: negative log-likelihood of pairwise similarities, given codes.

    With `theta_ij = scale <h_i, g_j>`, for the example i
    `"described"`: `1/M sum_j (log(1 + exp(theta_ij)) - S_ij theta_ij)`.
    `"released"`: `1/M sum_j (S_ij theta_ij - log(1 + exp(theta_ij)))^2`, which the
    authors' code has in its place. The default is the likelihood.

    The published loss is the sum over all pairs: N M times the mean of the values.
    Beside it stands how far the codes are from their signs, `hint_l2` with
    `variant="fitnets"` (twice it) and the other side `sign` of the codes averaged
    over the modalities. With `scale=1`, an adjacency matrix as the similarity and the
    embeddings as both codes it is the reconstruction of a graph auto-encoder.

    Args:
        student_codes: `h`, `[N, D]`, what one network says before the sign.
        teacher_similarity: `S`, `[N, M]` in [0, 1], see `neighbor_similarity`.
        other_codes: `g`, `[M, D]`: those of the other modality, of the batch or of
            the whole set. Under `pmap` or `shard_map` these must be of all.
        scale: a scalar above 0; published 1/2.
        variant: `"described"` or `"released"`.

    Returns:
        `[N]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if an array is empty or not of rank 2, shapes do not fit, a dtype
            is not floating, the scale is not above 0, a similarity lies outside
            [0, 1], or the variant is unknown.

    Example:
        >>> codes, others = jnp.array([[2.0, 2.0]]), jnp.array([[2.0, 2.0], [-2.0, 0]])
        >>> similarity = jnp.array([[1.0, 0.0]])
        >>> values = hashing_likelihood(codes, similarity, other_codes=others)
        >>> print(f"{values.mean():.4f}")
        0.0725

    Reference:
        Hu, Xie, Hong, Tian, "Creating Something from Nothing: Unsupervised Knowledge
        Distillation for Cross-Modal Hashing", CVPR 2020.
    """
    checks.one_of("variant", variant, HASHING_VARIANTS)
    checks.positive("scale", scale)
    for name, x in (
        ("student_codes", student_codes),
        ("teacher_similarity", teacher_similarity),
        ("other_codes", other_codes),
    ):
        checks.floating(name, x)
        checks.rank(name, x, 2)
        checks.not_empty(name, x)
    (rows, width), others = student_codes.shape, other_codes.shape[0]
    checks.shape("teacher_similarity", teacher_similarity, (rows, others))
    checks.shape("other_codes", other_codes, (others, width))
    checks.holds(
        "teacher_similarity",
        lambda np, s: (s >= 0) & (s <= 1),
        "numbers in [0, 1]",
        teacher_similarity,
    )
    codes, similarity, other = promote_together(
        student_codes, teacher_similarity, other_codes
    )
    theta = jnp.asarray(scale, codes.dtype) * gram(codes, other)
    positive, every = similarity * theta, -nn.log_sigmoid(-theta)
    cost = every - positive
    return masked_mean(jnp.square(cost) if variant == "released" else cost, 1)
