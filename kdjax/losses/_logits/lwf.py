"""Learning without forgetting (LwF)."""

import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.logits import cross_entropy, possible, tempered_pair
from kdjax.core.reduce import masked_count
from kdjax.core.types import Array


def lwf(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 2.0,
    eps: float | Array = 0.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Learning without forgetting (LwF): cross-entropy with the old model's outputs.

    `-sum_k p_k log q_k` with both probabilities raised to `1 / T` and normalized again,
    which is `softmax(logits / T)`. Unlike elsewhere there is **no** `T^2`, since the
    published weight was tuned without it. So at `T = 2` this is a quarter of
    `soft_cross_entropy`.

    Args:
        student_logits: `[..., classes]`, of the old head or heads of the model in
            training, on images of the new task.
        teacher_logits: the same shape, of the model before the new task.
        temperature: a scalar above 0.
        eps: smoothing of the student, in [0, 1]: `q` becomes
            `(q + eps / K) / (1 + eps)`, which bounds the loss. The paper has none;
            FACIL, a common test bed, has 1e-5.
        axis: the axis of the classes.
        where: bool, broadcastable to the logits; the classes that take part (those
            of the old tasks, say).

    Returns:
        `[...]`, one value in nats per example, at least float32. The published weight
        is 1, for each old head or once for all in one softmax.

    Raises:
        ValueError: as in `softmax_kl`, or if `eps` lies outside [0, 1].

    Example:
        >>> student = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.0]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> print(f"{lwf(student, teacher).mean():.4f}")
        1.2101

    Reference:
        Li, Hoiem, "Learning without Forgetting", 2016, arXiv 1606.09282.
    """
    log_student, log_teacher, _ = tempered_pair(
        student_logits, teacher_logits, temperature, axis, where
    )
    checks.between("eps", eps, 0.0, 1.0)
    eps = jnp.asarray(eps, log_student.dtype)
    where = possible(student_logits, teacher_logits, where)
    count = jnp.expand_dims(masked_count(log_student, axis, where), axis)
    floor = jnp.broadcast_to(jnp.log(eps / count), log_student.shape)
    log_student = jnp.logaddexp(log_student, floor) - jnp.log1p(eps)
    return cross_entropy(log_teacher, log_student, axis, where)
