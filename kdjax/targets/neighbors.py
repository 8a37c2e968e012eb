"""Pairwise similarity labels, from a teacher's nearest neighbors."""

import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram
from kdjax.core.numerics import l2_normalize
from kdjax.core.types import Array


def neighbor_similarity(
    teacher_features: Array,
    other_features: Array | None = None,
    *,
    neighbors: int = 5,
    value: float | Array = 0.999,
) -> Array:
    """Pairwise similarity labels, from the nearest neighbors of a teacher.

    `S_ij = value` where j is among the k nearest of i (by the cosine of the
    features), in the first modality or in the other; 0 elsewhere. Each is among its
    own. The rows are those of the global set.

    Args:
        teacher_features: `[N, D]`, of images say.
        other_features: `[N, E]`, of the texts that go with them; optional.
        neighbors: k, at least 1; itself included; all where there are fewer.
        value: a scalar in [0, 1].

    Returns:
        `[N, N]`, at least float32, for `hashing_likelihood`.

    Raises:
        ValueError: if an argument is empty or not of rank 2, the numbers of rows
            differ, a dtype is not floating, or an option is out of its range.

    Example:
        >>> features = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> print(neighbor_similarity(features, neighbors=2, value=1.0))
        [[1. 1. 0.]
         [1. 1. 0.]
         [0. 1. 1.]]

    Reference:
        Hu, Xie, Hong, Tian, "Creating Something from Nothing: Unsupervised Knowledge
        Distillation for Cross-Modal Hashing", CVPR 2020.
    """
    checks.count("neighbors", neighbors)
    checks.between("value", value, 0.0, 1.0)
    other = teacher_features if other_features is None else other_features
    names = ("teacher_features", "other_features")
    first, second, _ = embeddings(teacher_features, other, names=names)
    near = _nearest(first, neighbors) | _nearest(second, neighbors)
    return jnp.where(near, jnp.asarray(value, first.dtype), 0)


def _nearest(features: Array, neighbors: int) -> Array:
    rows = features.shape[0]
    cosine = gram(l2_normalize(features))
    # Itself first, whatever the rounding.
    cosine = jnp.where(jnp.eye(rows, dtype=bool), jnp.inf, cosine)
    _, ids = lax.top_k(cosine, min(neighbors, rows))
    none = jnp.zeros((rows, rows), bool)
    return jnp.put_along_axis(none, ids, True, 1, inplace=False)
