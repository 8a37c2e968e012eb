"""Hashing: codes that agree with who is whose neighbour."""

import jax.numpy as jnp
from jax import lax, nn

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram
from kdjax.core.numerics import l2_normalize, widen_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array

HASHING_FORMS = ("described", "released")


def neighbour_similarity(
    teacher_features: Array,
    other_features: Array | None = None,
    *,
    neighbours: int = 5,
    value: float | Array = 0.999,
) -> Array:
    """Who is similar to whom, by the nearest neighbours that a teacher sees.

    `S_ij = value` where j is among the k nearest of i (by the cosine of the
    features), in the first modality or in the other; 0 elsewhere. Each is among its
    own. The rows are those of the global set.

    Args:
        teacher_features: `[N, D]`, of images say.
        other_features: `[N, E]`, of the texts that go with them; optional.
        neighbours: k, at least 1; itself included; all where there are fewer.
        value: a scalar in [0, 1].

    Returns:
        `[N, N]`, at least float32, for `hashing_likelihood`.

    Raises:
        ValueError: if a side is empty or not of rank 2, the numbers of rows differ,
            a dtype is not floating, or a knob is out of its range.

    Example:
        >>> features = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> print(neighbour_similarity(features, neighbours=2, value=1.0))
        [[1. 1. 0.]
         [1. 1. 0.]
         [0. 1. 1.]]

    Reference:
        Hu, Xie, Hong, Tian, "Creating Something from Nothing: Unsupervised Knowledge
        Distillation for Cross-Modal Hashing", CVPR 2020.
    """
    checks.count("neighbours", neighbours)
    checks.between("value", value, 0.0, 1.0)
    other = teacher_features if other_features is None else other_features
    names = ("teacher_features", "other_features")
    first, second, _ = embeddings(teacher_features, other, names=names)
    near = _nearest(first, neighbours) | _nearest(second, neighbours)
    return jnp.where(near, jnp.asarray(value, first.dtype), 0)


def _nearest(features: Array, neighbours: int) -> Array:
    rows = features.shape[0]
    cosine = gram(l2_normalize(features))
    # Itself first, whatever the rounding.
    cosine = jnp.where(jnp.eye(rows, dtype=bool), jnp.inf, cosine)
    _, ids = lax.top_k(cosine, min(neighbours, rows))
    none = jnp.zeros((rows, rows), bool)
    return jnp.put_along_axis(none, ids, True, 1, inplace=False)


def hashing_likelihood(
    student_codes: Array,
    teacher_similarity: Array,
    *,
    other_codes: Array,
    scale: float | Array = 0.5,
    form: str = "described",
) -> Array:
    """Negative log-likelihood of a similarity, given codes before their signs.

    With `theta_ij = scale <h_i, g_j>`, for the example i
    `"described"`: `1/M sum_j (log(1 + exp(theta_ij)) - S_ij theta_ij)`.
    `"released"`: `1/M sum_j (S_ij theta_ij - log(1 + exp(theta_ij)))^2`, which the
    authors' code has in its place. The default is the likelihood.

    The published loss is the sum over all pairs: N M times the mean of the values.
    Beside it stands how far the codes are from their signs, `hint_l2` with
    `convention="fitnets"` (twice it) and the other side `sign` of the codes averaged
    over the modalities. With `scale=1`, an adjacency matrix as the similarity and the
    embeddings as both codes it is the reconstruction of a graph auto-encoder.

    Args:
        student_codes: `h`, `[N, D]`, what one network says before the sign.
        teacher_similarity: `S`, `[N, M]` in [0, 1], see `neighbour_similarity`.
        other_codes: `g`, `[M, D]`: those of the other modality, of the batch or of
            the whole set. Under `pmap` or `shard_map` these must be of all.
        scale: a scalar above 0; published 1/2.
        form: `"described"` or `"released"`.

    Returns:
        `[N]`, one value in nats per example, at least float32.

    Raises:
        ValueError: if an array is empty or not of rank 2, shapes do not fit, a dtype
            is not floating, the scale is not above 0, a similarity lies outside
            [0, 1], or the form is unknown.

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
    checks.one_of("form", form, HASHING_FORMS)
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
    codes, similarity, other = widen_together(
        student_codes, teacher_similarity, other_codes
    )
    theta = jnp.asarray(scale, codes.dtype) * gram(codes, other)
    positive, every = similarity * theta, -nn.log_sigmoid(-theta)
    cost = every - positive
    return masked_mean(jnp.square(cost) if form == "released" else cost, 1)
