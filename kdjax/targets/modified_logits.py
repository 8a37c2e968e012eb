"""Targets made from logits: shuffled, sampled, or corrected by rules."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together, tempered_log_softmax
from kdjax.core.types import Array


def _check_logits(name: str, logits: Array, axis: int) -> int:
    checks.floating(name, logits)
    checks.not_empty(name, logits)
    return checks.axis(axis, name, logits)


def permute_dark_knowledge(
    key: Array, teacher_logits: Array, *, axis: int = -1
) -> Array:
    """DKPP: the teacher's logits with all but the largest shuffled.

    An ablation: what is left of distillation when the teacher's confidence stays and
    its dark knowledge, which wrong class is how wrong, goes ("DKPP").

    Args:
        key: a random key.
        teacher_logits: `[..., classes]`, before any softmax.
        axis: the axis of the classes.

    Returns:
        The same shape and dtype: the largest entry (the first of equals) in its
        position, the others in any order.

    Raises:
        ValueError: if the logits are empty or not floating.

    Example:
        >>> shuffled = permute_dark_knowledge(
        ...     jax.random.key(0), jnp.array([1.0, 9.0, 3.0, 2.0])
        ... )
        >>> print(shuffled[1], jnp.sort(shuffled))
        9.0 [1. 2. 3. 9.]

    Reference:
        Furlanello et al., "Born-Again Neural Networks", 2018, arXiv 1805.04770.
    """
    axis = _check_logits("teacher_logits", teacher_logits, axis)
    logits = jnp.moveaxis(jnp.asarray(teacher_logits), axis, -1)
    classes = logits.shape[-1]
    position = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    top = position == jnp.argmax(logits, -1, keepdims=True).astype(jnp.int32)
    # Both orders end with the largest, which therefore keeps its position.
    drawn = jnp.where(top, 2, jax.random.uniform(key, logits.shape, jnp.float32))
    source = jnp.argsort(drawn, -1)
    goal = jnp.argsort(jnp.where(top, classes, position), -1)
    source_values = jnp.take_along_axis(logits, source, -1)
    return jnp.moveaxis(
        jnp.put_along_axis(logits, goal, source_values, -1, inplace=False), -1, axis
    )


def gumbel_softmax(
    key: Array,
    logits: Array,
    *,
    temperature: float | Array = 1.0,
    axis: int = -1,
) -> Array:
    """Gumbel-softmax: a relaxed draw from a categorical distribution.

    `softmax((logits + g) / T)` with Gumbel noise `g`: nearly one-hot for small `T`,
    nearly uniform for large; its largest entry is a draw from `softmax(logits)` at
    any `T`. The three networks of KDGAN pass such draws of the classifier and of the
    teacher to the critic (see `adversarial_critic` for their losses).

    Args:
        key: a random key.
        logits: `[..., classes]`, before any softmax.
        temperature: a scalar above 0.
        axis: the axis of the classes.

    Returns:
        `[..., classes]` probabilities, at least float32.

    Raises:
        ValueError: if the logits are empty or not floating, or the temperature is
            not above 0.

    Example:
        >>> draw = gumbel_softmax(jax.random.key(0), jnp.array([0.0, 50.0]))
        >>> print(f"{draw[1]:.4f}")
        1.0000

    Reference:
        Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2016,
        arXiv 1611.01144; Wang et al., "KDGAN", NeurIPS 2018 (no arXiv version).
    """
    _check_logits("logits", logits, axis)
    checks.temperature("temperature", temperature)
    logits = promote(logits)
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jnp.exp(tempered_log_softmax(logits + noise, temperature, axis))


def rule_teacher_logits(
    student_logits: Array,
    *,
    rule_scores: Array,
    confidence: Array,
    strength: float | Array,
) -> Array:
    """Logits of a teacher made from the student and rules (Hu et al.; SAKE).

    `z_k + C sum_l lambda_l f_lk`: the probabilities are `p_k exp(C sum_l lambda_l
    f_lk)`, normalized, where the rule l says `f_lk` of the outcome k and has the
    confidence `lambda_l`, a softmax of attention over the rules, say. With one
    semantic row for each class as the rule, it is the teacher of SAKE.

    Whether the gradient goes through this teacher is the caller's choice: stop it
    all, or stop `student_logits` alone to train the attention jointly.

    Args:
        student_logits: `[..., outcomes]`, for example the two of a comparison.
        rule_scores: `f`, `[..., rules, outcomes]`.
        confidence: `lambda`, `[..., rules]`.
        strength: `C`, a scalar, not negative; 0 gives the student itself.

    Returns:
        `[..., outcomes]`, at least float32.

    Raises:
        ValueError: if shapes do not fit or are empty, a dtype is not floating, or the
            strength is negative.

    Example:
        >>> logits = rule_teacher_logits(
        ...     jnp.zeros((1, 2)),
        ...     rule_scores=jnp.array([[[1.0, 0.0]]]),
        ...     confidence=jnp.array([[0.5]]),
        ...     strength=2.0,
        ... )
        >>> print(logits)
        [[1. 0.]]

    Reference:
        Song et al., "Neural Compatibility Modeling with Attentive Knowledge
        Distillation", 2018, arXiv 1805.00313; Liu et al. (SAKE), 2019,
        arXiv 1904.03208.
    """
    _check_logits("student_logits", student_logits, -1)
    checks.floating("rule_scores", rule_scores)
    checks.rank("rule_scores", rule_scores, student_logits.ndim + 1)
    *leading, outcomes = student_logits.shape
    rules = rule_scores.shape[-2]
    checks.shape("rule_scores", rule_scores, (*leading, rules, outcomes))
    checks.floating("confidence", confidence)
    checks.shape("confidence", confidence, (*leading, rules))
    checks.between("strength", strength, 0.0)
    logits, scores, weights = promote_together(student_logits, rule_scores, confidence)
    shift = jnp.sum(weights[..., None] * scores, -2)
    return logits + jnp.asarray(strength, logits.dtype) * shift
