"""Policy distillation: KL divergence with one temperature for each network."""

from kdjax.core import checks
from kdjax.core.logits import check_pair, divergence
from kdjax.core.numerics import promote_together, tempered_log_softmax
from kdjax.core.types import Array


def policy_distillation(
    student_logits: Array,
    teacher_logits: Array,
    *,
    temperature: float | Array = 0.01,
    student_temperature: float | Array = 1.0,
    axis: int = -1,
    where: Array | None = None,
) -> Array:
    """Policy distillation: KL divergence with a temperature for each network.

    `sum_k p_k (log p_k - log q_k)` with `p = softmax(teacher_logits / T)` and
    `q = softmax(student_logits / T_s)`. Policy distillation sharpens the action
    values of the teacher so (`T = 0.01`, `T_s = 1`); the student's logits then are
    those of a policy, of another scale. There is no `T^2`: the gradient of the
    student depends on its own temperature alone.

    The same form serves soft labels that are given as probabilities `y`: pass
    `log y` with `T = 1`, as zero-shot distillation does (`T_s = 20`, see
    `sample_soft_labels`).

    Args:
        student_logits: `[..., classes]`, before any softmax.
        teacher_logits: the same shape: action values, say.
        temperature: `T`, the teacher's, a scalar above 0.
        student_temperature: `T_s`, a scalar above 0.
        axis: the axis of the classes (actions).
        where: bool, broadcastable to the logits; the classes that take part.

    Returns:
        `[...]`, one value in nats per example, at least float32. Used alone, with
        weight 1. It is 0 where `p = q`, not where the logits are equal.

    Raises:
        ValueError: as in `softmax_kl`, for either temperature.

    Example:
        >>> import jax.numpy as jnp
        >>> values = jnp.array([[1.00, 1.01, 0.90]])
        >>> student = jnp.log(jnp.array([[0.26894138, 0.73104965, 0.00001221]]))
        >>> print(f"{abs(policy_distillation(student, values)).mean():.4f}")
        0.0000

    Reference:
        Rusu et al., "Policy Distillation", 2015, arXiv 1511.06295.
    """
    check_pair(student_logits, teacher_logits, axis, where)
    checks.classes("student_logits", student_logits, axis)
    checks.temperature("temperature", temperature)
    checks.temperature("student_temperature", student_temperature)
    student, teacher = promote_together(student_logits, teacher_logits)
    log_student = tempered_log_softmax(student, student_temperature, axis, where)
    log_teacher = tempered_log_softmax(teacher, temperature, axis, where)
    return divergence(log_teacher, log_student, axis, where)
