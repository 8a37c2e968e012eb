"""Multi-head graph distillation (MHGD)."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pair_mask, require_examples
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.reduce import masked_sum
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch


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
    later, earlier, sender, receiver = promote_together(
        later, earlier, sender, receiver
    )
    scores = gram(gram(later, sender), gram(earlier, receiver))
    return tempered_log_softmax(jnp.tanh(scores), 1.0, -1, pair_mask(valid))


@over_global_batch("student_earlier", "teacher_earlier")
def mhgd(
    student_features: Array,
    teacher_features: Array,
    *,
    student_earlier: Array,
    teacher_earlier: Array,
    sender: Array,
    receiver: Array,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """Multi-head graph distillation (MHGD): KL divergence of attention graphs.

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
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per anchor row, at least float32. The published
        loss, the sum over all entries, is its plain mean (over the examples that
        take part).

    Raises:
        ValueError: if an array is empty or of another rank, shapes do not fit, there
            are fewer than 2 rows, or a dtype is not floating.

    Example:
        >>> later = jnp.array([[1.0, 0], [0, 1], [0.6, 0.8]])
        >>> heads = jnp.eye(2)[None]
        >>> values = mhgd(
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
    del axis_name  # `over_global_batch` has gathered the rows.
    student, teacher, valid = embeddings(
        student_features, teacher_features, where=where
    )
    require_examples("student_features", valid.size, 2, "a share alone is 1")
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
        return masked_sum(jnp.exp(graph) * (graph - target), 1, pair_mask(valid))

    heads = jnp.asarray(sender), jnp.asarray(receiver)
    total = jnp.sum(lax.map(divergence, heads), axis=0)
    return jnp.sum(valid, dtype=jnp.int32).astype(total.dtype) * total
