"""Channel-wise distillation (CWD)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.layout import any_valid, map_pair
from kdjax.core.numerics import tempered_log_softmax
from kdjax.core.reduce import masked_mean, masked_sum
from kdjax.core.types import Array


def cwd(
    student_features: Array,
    teacher_features: Array,
    *,
    temperature: float | Array = 4.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Channel-wise distillation (CWD): KL divergence over each channel's positions.

    `T^2/C sum_c KL(p_c || q_c)` with `p_c = softmax(teacher_c / T)` and
    `q_c = softmax(student_c / T)`, both over the positions. A constant added to a
    channel of student or teacher changes nothing.

    Args:
        student_features: `[batch, ..., channels]`, a map or the logits of a dense
            prediction, brought to the teacher's shape by an adapter.
        teacher_features: the same shape.
        temperature: a scalar above 0; 4 in the paper.
        axis: the axis of the channels; not the first.
        where: bool, broadcastable to the features; the positions and channels that
            take part. A channel without any such position is not counted.

    Returns:
        `[batch]`, one value per example in nats, at least float32. Weights to
        start with are 3 for the logits of a dense prediction and 50 for features.

    Raises:
        ValueError: if shapes differ, are empty or have fewer than three axes, a
            dtype is not floating, or the temperature is not above 0.

    Example:
        >>> student = jnp.zeros((1, 2, 2, 1))
        >>> teacher = jnp.array([9.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
        >>> values = cwd(student, teacher, temperature=1.0)
        >>> print(values.shape, f"{values.mean():.4f}")
        (1,) 1.3826

    Reference:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", 2021,
        arXiv 2011.13256.
    """
    checks.temperature("temperature", temperature)
    pair = map_pair(student_features, teacher_features, axis, where)
    log_student = tempered_log_softmax(pair.student, temperature, 1, pair.keep)
    log_teacher = tempered_log_softmax(pair.teacher, temperature, 1, pair.keep)
    share = jnp.exp(log_teacher)
    divergence = masked_sum(share * (log_teacher - log_student), 1, pair.keep)
    scale = jnp.square(jnp.asarray(temperature, divergence.dtype))
    return scale * masked_mean(divergence, 1, any_valid(pair.keep, 1))
