"""InfoNCE: contrast within the batch."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.examples import embeddings, gram, pair_mask, require_examples
from kdjax.core.numerics import l2_normalize, tempered_log_softmax
from kdjax.core.types import Array
from kdjax.losses._global_batch import AxisName, over_global_batch


@over_global_batch()
def info_nce(
    student_features: Array,
    teacher_features: Array,
    *,
    temperature: float | Array = 0.07,
    symmetric: bool = False,
    axis: int = -1,
    axis_name: AxisName = None,
    where: Array | None = None,
) -> Array:
    """InfoNCE: contrast of the same example's embedding with the batch's others.

    `-log softmax_j(<u_i, v_j> / temperature)[i]` with the student's rows `u` and the
    teacher's `v` scaled to unit length; if `symmetric`, the mean of this and of
    finding the student's row from the teacher's. There is no factor of the squared
    temperature: this is no tempered divergence, and published weights go without.

    Turning student and teacher alike changes nothing, nor does scaling any row. Equal
    inputs do not give 0; one example alone does. Tap embeddings of one width, behind an
    adapter on the student; the weight in use is 1.

    Args:
        student_features: `[N, D]` embeddings of the global batch.
        teacher_features: the same shape.
        temperature: a scalar above 0.
        symmetric: average over both directions.
        axis: the axis of the embedding.
        axis_name: the mapped axis that divides the batch, in `shard_map` or `pmap`. ()
            states that the rows are the whole batch.
        where: `[N]` bool; the examples that take part. The others influence nothing
            and get 0.

    Returns:
        `[N]`, one value in nats per example, at least float32. The published loss is
        its plain mean (over the examples that take part).

    Raises:
        ValueError: if an argument is empty or not of rank 2, shapes differ, there are
            fewer than 2 rows, a dtype is not floating, or the temperature is not a
            finite number above 0.

    Example:
        >>> student = jnp.array([[1.0, 1], [2, 1], [1, 3], [3, 2]])
        >>> teacher = jnp.array([[1.0, 0], [1, 1], [0, 1], [1, 2]])
        >>> values = info_nce(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (4,) 1.3386

    Reference:
        van den Oord, Li, Vinyals, "Representation Learning with Contrastive
        Predictive Coding", 2018, arXiv 1807.03748.
    """
    del axis_name  # `over_global_batch` has gathered the rows.
    checks.temperature("temperature", temperature)
    checks.boolean("symmetric", symmetric)
    student, teacher, valid = embeddings(
        student_features, teacher_features, axis, where
    )
    require_examples("student_features", valid.size, 2, "each needs a negative")
    checks.same_shape("teacher_features", teacher, "student_features", student)
    scores = gram(l2_normalize(student), l2_normalize(teacher))
    log_probs = tempered_log_softmax(scores, temperature, 1, pair_mask(valid))
    if symmetric:
        back = tempered_log_softmax(scores, temperature, 0, pair_mask(valid))
        log_probs = (log_probs + back) / 2
    return -jnp.diagonal(log_probs)
