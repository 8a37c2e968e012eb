"""Losses of a given graph: smoothness along edges, reconstruction of edges."""

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import gram, pair_mask
from kdjax.core.numerics import promote, promote_together
from kdjax.core.reduce import masked_mean
from kdjax.core.types import Array


def edge_smoothness(
    features: Array, edges: Array, *, where: Array | None = None
) -> Array:
    """Graph smoothness: mean squared distance between the ends of edges.

    `|f_i - f_j|^2` for the edge (i, j): over the edges whose ends are both reliable
    and alike (`reliability_mask`) it keeps a graph's predictions smooth. Objective as
    a survey describes it; that the square is meant is our reading.

    Args:
        features: `[nodes, D]`: logits or embeddings.
        edges: integer `[edges, 2]`, the nodes at both ends.
        where: `[edges]` bool; the edges that take part. The others get 0.

    Returns:
        `[edges]`, at least float32; the loss is its plain mean (over the edges that
        take part). Its weight is not in our references.

    Raises:
        ValueError: if a shape or dtype is wrong, an array is empty, or a node is not
            in `[0, nodes)`; such an edge is NaN where the nodes are traced.

    Example:
        >>> features = jnp.array([[0.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
        >>> print(edge_smoothness(features, jnp.array([[0, 1], [0, 2]])))
        [4. 1.]

    Reference:
        Zhang et al., "Reliable Data Distillation on Graph Convolutional Network",
        SIGMOD 2020 (no arXiv version).
    """
    checks.floating("features", features)
    checks.rank("features", features, 2)
    checks.integer("edges", edges)
    checks.rank("edges", edges, 2)
    for name, x in (("features", features), ("edges", edges)):
        checks.not_empty(name, x)
    checks.shape("edges", edges, (edges.shape[0], 2))
    keep = jnp.ones(edges.shape[:1], bool)
    if where is not None:
        checks.mask("where", where, edges.shape[:1])
        keep = jnp.broadcast_to(where, edges.shape[:1])
        edges = jnp.where(keep[:, None], edges, 0)
    nodes = features.shape[0]
    expected = f"nodes in [0, {nodes})"
    checks.holds("edges", lambda _, ids: (ids >= 0) & (ids < nodes), expected, edges)
    # A negative index would count from the end; out of range is what it is.
    edges = jnp.where(jnp.asarray(edges) < 0, nodes, edges)
    ends = promote(features).at[edges].get(mode="fill", fill_value=jnp.nan)
    ends = jnp.where(keep[:, None, None], ends, 0)
    return jnp.sum(jnp.square(ends[:, 0] - ends[:, 1]), axis=-1)


def adjacency_reconstruction(
    embeddings: Array, adjacency: Array, *, where: Array | None = None
) -> Array:
    """Graph auto-encoder (GAE): cross-entropy of inner products with the edges.

    `1/N sum_j CE(A_ij, sigmoid(<z_i, z_j>))`, the binary cross-entropy: a graph
    auto-encoder's loss, which keeps the embeddings that carry a graph's knowledge.

    Args:
        embeddings: `[N, D]`, one row per node.
        adjacency: `[N, N]` floating in [0, 1].
        where: `[N]` bool; the nodes that are no padding. The others get 0.

    Returns:
        `[N]`, one value in nats per node, at least float32; the loss is its plain mean
        (over the nodes that take part), of weight 1.

    Raises:
        ValueError: if a shape or dtype is wrong, an array is empty, or an entry of
            the adjacency lies outside [0, 1].

    Example:
        >>> embeddings = jnp.array([[3.0, 0.0], [3.0, 0.0], [-3.0, 0.0]])
        >>> adjacency = jnp.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
        >>> values = adjacency_reconstruction(embeddings, adjacency)
        >>> print(f"{values.mean():.6f}")
        0.000123

    Reference:
        Yao et al., "Graph Few-shot Learning via Knowledge Transfer", 2019,
        arXiv 1910.03053; Kipf, Welling, "Variational Graph Auto-Encoders", 2016,
        arXiv 1611.07308.
    """
    checks.floating("embeddings", embeddings)
    checks.rank("embeddings", embeddings, 2)
    checks.not_empty("embeddings", embeddings)
    nodes = embeddings.shape[0]
    checks.floating("adjacency", adjacency)
    checks.shape("adjacency", adjacency, (nodes, nodes))
    keep = jnp.ones(nodes, bool)
    if where is not None:
        checks.mask("where", where, (nodes,))
        keep = jnp.broadcast_to(where, (nodes,))
    both = pair_mask(keep)
    checks.holds(
        *("adjacency", lambda _, a, counted: ~counted | ((a >= 0) & (a <= 1))),
        *("values in [0, 1]", adjacency, both),
    )
    embeddings, adjacency = promote_together(embeddings, adjacency)
    scores = gram(jnp.where(keep[:, None], embeddings, 0))
    adjacency = jnp.where(both, adjacency, 0)
    return masked_mean(jax.nn.softplus(scores) - adjacency * scores, 1, both)
