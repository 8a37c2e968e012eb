"""Losses between graphs over the examples of a batch: neighbourhoods and attention.

A value depends on all other examples, so they mean the global batch, as those of
`kdjax.losses.relation` do. Flatten or pool a map to `[N, D]` first.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import at_least, embeddings, gram, pairs, squared_distances
from kdjax.core.numerics import tempered_log_softmax, widen, widen_together
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array

# A squared width at or below this is that of equal points.
_EPS = 1e-12


def _median(values: Array, where: Array) -> Array:
    """The median of the selected values, 0 where there is none."""
    ordered = jnp.sort(jnp.where(where, values, jnp.inf).ravel())
    count = jnp.sum(where, dtype=jnp.int32)
    middle = ordered[jnp.maximum(count - 1, 0) // 2] + ordered[count // 2]
    return jnp.where(count == 0, 0, middle) / 2


def _neighbours(features: Array, valid: Array, count: int) -> tuple[Array, Array]:
    """Ids of the nearest others of each row, and which of them are any, `[N, k]`."""
    squared = lax.stop_gradient(squared_distances(features, valid))
    distinct = pairs(valid, distinct=True)
    nearest = jnp.where(distinct, -squared, -jnp.inf)
    _, ids = lax.top_k(nearest, min(count, valid.size - 1))
    return ids, jnp.take_along_axis(distinct, ids, axis=1)


def locality_preserving(
    student_features: Array,
    teacher_features: Array,
    *,
    neighbours: int = 5,
    sigma: float | Array | None = None,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Pull together in the student what is near in the teacher.

    For the anchor i: `1/k sum_j a_ij |f_i^s - f_j^s|^2` over the k nearest others of
    i in the teacher, with `a_ij = exp(-|f_i^t - f_j^t|^2 / sigma^2)`. Turning or
    shifting either side changes nothing; without `sigma`, neither does scaling the
    teacher. The loss only attracts: alone it collapses the student, and equal inputs
    do not give 0.

    Tap penultimate features. Weights in use: 1.5 with 5 neighbours, from ports; there
    is no code of the authors.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: `[N, E]`; the widths may differ.
        neighbours: k, at least 1; all others where there are fewer.
        sigma: the width of the Gaussian in units of the teacher's features, a scalar
            above 0. By default its square is the median of the squared distances to
            the neighbours, at least 1e-12.
        axis: the axis of the embedding.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value per anchor row in squared units of the student's features, at
        least float32. The published loss is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if a side is empty or not of rank 2, the number of rows differs or
            is below 2, a dtype is not floating, or a knob is not above 0.

    Example:
        >>> student = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])
        >>> teacher = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 1]])
        >>> values = locality_preserving(student, teacher, neighbours=1, sigma=3.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 2.4981

    Reference:
        Chen et al., "Learning Student Networks via Feature Embedding", 2021,
        arXiv 1812.06597.
    """
    checks.count("neighbours", neighbours)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    at_least("student_features", valid.size, 2, "each needs a neighbour")
    ids, near = _neighbours(teacher, valid, neighbours)
    far, far_teacher = (
        jnp.sum(jnp.square(x[:, None] - x[ids]), axis=2) for x in (student, teacher)
    )
    if sigma is None:
        square = _median(far_teacher, near)
        square = jnp.where(square < _EPS, _EPS, square)
    else:
        checks.positive("sigma", sigma)
        square = jnp.square(jnp.asarray(sigma, student.dtype))
    return masked_mean(jnp.exp(-far_teacher / square) * far, 1, near)


def _check_heads(sender: Array, receiver: Array, later: int, earlier: int) -> None:
    for name, heads, width in (
        ("sender", sender, later),
        ("receiver", receiver, earlier),
    ):
        checks.floating(name, heads)
        checks.rank(name, heads, 3)
        checks.not_empty(name, heads)
        checks.shape(name, heads, (*sender.shape[:2], width))


def _log_attention(
    later: Array, earlier: Array, sender: Array, receiver: Array, valid: Array
) -> Array:
    """Logarithm of one head's share of each earlier vector for each later one."""
    later, earlier, sender, receiver = widen_together(later, earlier, sender, receiver)
    scores = gram(gram(later, sender), gram(earlier, receiver))
    return tempered_log_softmax(jnp.tanh(scores), 1.0, -1, pairs(valid))


def multi_head_graph(
    student_features: Array,
    teacher_features: Array,
    *,
    student_earlier: Array,
    teacher_earlier: Array,
    sender: Array,
    receiver: Array,
    where: Array | None = None,
) -> Array:
    """Divergence between the attention of later on earlier vectors of two networks.

    With the head h, `A_hij = tanh(<S_h v_i, R_h u_j>)` for the later vectors `v` and
    the earlier `u` of one network, and `G = softmax_j A`; then for the anchor i
    `N sum_h sum_j G_hij^s (log G_hij^s - log G_hij^t)`. Both networks go through the
    same heads, which were fitted to the teacher alone (to tell the later vectors
    from the earlier) and stay fixed. The direction and the sum over everything are
    those of the authors' code; so the loss grows with the heads and the batch.

    The vectors are one of unit length per example and tap, such as the leading right
    singular vector of its map (`singular_vectors`). For
    heads with a bias append a 1 to every vector. The loss is added for all
    consecutive taps.

    Args:
        student_features: `[N, D]` vectors of the later tap, of the global batch.
        teacher_features: the same shape.
        student_earlier: `[N, E]` vectors of the earlier tap.
        teacher_earlier: the same shape.
        sender: `[heads, K, D]`, applied to the later vectors.
        receiver: `[heads, K, E]`, applied to the earlier ones.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published
        loss, the sum over all entries, is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if an array is empty or of another rank, shapes do not fit, or a
            dtype is not floating.

    Example:
        >>> later = jnp.array([[1.0, 0], [0, 1], [0.6, 0.8]])
        >>> heads = jnp.eye(2)[None]
        >>> values = multi_head_graph(
        ...     later[::-1],
        ...     later,
        ...     student_earlier=later,
        ...     teacher_earlier=later,
        ...     sender=heads,
        ...     receiver=heads,
        ... )
        >>> print(values.shape, f"{values.mean():.4f}")
        (3,) 0.1224

    Reference:
        Lee, Song, "Graph-based Knowledge Distillation by Multi-head Attention
        Network", 2019, arXiv 1907.02226.
    """
    student, teacher, valid = embeddings(
        student_features, teacher_features, where=where
    )
    names = ("student_earlier", "teacher_earlier")
    early, early_teacher, _ = embeddings(
        student_earlier, teacher_earlier, -1, where, names, valid.size
    )
    checks.same_shape("teacher_features", teacher, "student_features", student)
    checks.same_shape(names[1], early_teacher, names[0], early)
    _check_heads(sender, receiver, student.shape[1], early.shape[1])

    # Head by head, forward and again backward: fast where one head's graph is small
    # enough to stay near the processor, and never more memory than one head takes.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def divergence(head: tuple[Array, Array]) -> Array:
        graph = _log_attention(student, early, *head, valid)
        target = _log_attention(teacher, early_teacher, *head, valid)
        return masked_sum(jnp.exp(graph) * (graph - target), 1, pairs(valid))

    heads = jnp.asarray(sender), jnp.asarray(receiver)
    total = jnp.sum(lax.map(divergence, heads), axis=0)
    return jnp.sum(valid, dtype=jnp.int32).astype(total.dtype) * total


def edge_smoothness(
    features: Array, edges: Array, *, where: Array | None = None
) -> Array:
    """How far the two ends of each edge of a graph are apart.

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
    ends = widen(features).at[edges].get(mode="fill", fill_value=jnp.nan)
    ends = jnp.where(keep[:, None, None], ends, 0)
    return jnp.sum(jnp.square(ends[:, 0] - ends[:, 1]), axis=-1)


def adjacency_reconstruction(
    embeddings: Array, adjacency: Array, *, where: Array | None = None
) -> Array:
    """How well inner products of the nodes' embeddings tell who is connected.

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
    both = pairs(keep)
    checks.holds(
        *("adjacency", lambda _, a, seen: ~seen | ((a >= 0) & (a <= 1))),
        *("values in [0, 1]", adjacency, both),
    )
    embeddings, adjacency = widen_together(embeddings, adjacency)
    scores = gram(jnp.where(keep[:, None], embeddings, 0))
    adjacency = jnp.where(both, adjacency, 0)
    return masked_mean(jax.nn.softplus(scores) - adjacency * scores, 1, both)
