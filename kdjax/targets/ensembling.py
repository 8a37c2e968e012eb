"""One target out of several teachers: their mean, their weights."""

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.core import checks
from kdjax.core.numerics import promote, promote_together, tempered_log_softmax
from kdjax.core.types import Array

MEANS = ("arithmetic", "geometric")


RULES = ("confidence", "entropy", "oracle")


def check_teachers(logits: Array, axis: int) -> int:
    """The axis of the classes of `[teachers, ..., classes]`."""
    checks.floating("teacher_logits", logits)
    checks.rank("teacher_logits", logits, 2, at_least=True)
    checks.not_empty("teacher_logits", logits)
    axis = checks.axis(axis, "teacher_logits", logits)
    if axis == 0:
        checks.refuse("axis", "the axis of the classes", "the teachers'")
    return axis


def _without(axis: int, x: Array) -> tuple[int, ...]:
    return x.shape[:axis] + x.shape[axis + 1 :]


def _check_sums(weights: Array) -> None:
    checks.holds("weights", lambda np, w: w >= 0, "numbers of at least 0", weights)
    # Of the array itself, so that known weights are refused under jit as well.
    total = weights.astype("float32").sum(0)
    slack = max(1e-4, float(jnp.finfo(weights.dtype).eps))
    checks.holds(
        "weights",
        lambda np, s: (abs(s - 1) <= slack) | (s == 0),
        "a sum over the teachers of 1, or of 0 for none",
        total,
    )


def ensemble_logits(
    teacher_logits: Array,
    *,
    weights: Array | None = None,
    mean: str = "arithmetic",
    temperature: float | Array = 1.0,
    axis: int = -1,
) -> Array:
    """Ensemble: one set of logits from several teachers.

    `"arithmetic"`: `T log sum_m w_m softmax(z_m / T)`, so that the softmax at `T` is
    the mean of the teachers' probabilities there. The gradient that `softmax_kl` with
    it gives the student is that of `sum_m w_m softmax_kl` with each teacher. Default.
    `"geometric"`: `sum_m w_m z_m`, the mean of the logits.

    Give the temperature that the loss will have: probabilities averaged at 1 and
    tempered afterwards are another teacher.

    Args:
        teacher_logits: `[teachers, ..., classes]`, of one order of the classes.
        weights: `[teachers]`, or one per example too, `[teachers, ...]`; not negative
            and summing to 1 over the teachers. Equal ones by default.
        mean: `"arithmetic"` or `"geometric"`.
        temperature: `T`, a scalar above 0; of no effect on `"geometric"`.
        axis: the axis of the classes; not the first.

    Returns:
        `[..., classes]`, at least float32. An example whose weights are all 0 gets
        logits of 0.

    Raises:
        ValueError: if shapes do not fit or are empty, a dtype is not floating, the
            mean is unknown, the temperature is not above 0, a weight is negative, or
            they sum neither to 1 nor to 0.

    Example:
        >>> teachers = jnp.log(jnp.array([[[0.8, 0.2]], [[0.4, 0.6]]]))
        >>> print(f"{jnp.exp(ensemble_logits(teachers))[0, 0]:.4f}")
        0.6000

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531.
    """
    axis = check_teachers(teacher_logits, axis)
    checks.one_of("mean", mean, MEANS)
    checks.temperature("temperature", temperature)
    if weights is None:
        count = teacher_logits.shape[0]
        weights = jnp.full(count, 1 / count, promote(teacher_logits).dtype)
    checks.floating("weights", weights)
    per_example = _without(axis, teacher_logits)
    one_each = weights.ndim == 1
    checks.shape("weights", weights, per_example[:1] if one_each else per_example)
    _check_sums(weights)
    if one_each:
        weights = lax.expand_dims(weights, range(1, teacher_logits.ndim - 1))
        weights = jnp.broadcast_to(weights, per_example)
    logits, weights = promote_together(teacher_logits, jnp.expand_dims(weights, axis))
    weights = jnp.broadcast_to(weights, logits.shape)
    if mean == "geometric":
        return jnp.sum(jnp.where(weights == 0, 0, weights * logits), 0)
    scale = jnp.asarray(temperature, logits.dtype)
    return scale * _log_mean(tempered_log_softmax(logits, scale, axis), weights)


def _log_mean(log_p: Array, weights: Array) -> Array:
    """Log of the weighted mean along the first axis; 0 where nothing is weighed."""
    used = weights > 0
    top = jnp.max(jnp.where(used, log_p, -jnp.inf), 0)
    top = lax.stop_gradient(jnp.where(jnp.isneginf(top), 0, top))
    shifted = jnp.where(used, log_p - top[None], 0)
    total = jnp.sum(jnp.where(used, weights * jnp.exp(shifted), 0), 0)
    none = total == 0
    return jnp.where(none, 0, jnp.log(jnp.where(none, 1, total)) + top)


def teacher_weights(
    teacher_logits: Array,
    *,
    rule: str = "entropy",
    labels: Array | None = None,
    axis: int = -1,
) -> Array:
    """Weights of several teachers for each example, by entropy, confidence or labels.

    `"entropy"`: the softmax over the teachers of minus the entropy of each one's
    prediction. `"confidence"`: in proportion to each one's largest probability.
    `"oracle"`: equally over the teachers that get the label right, and 0 for all
    where none does: that example is left to the labels. The references name the
    first two rules without a formula; these are ours.

    Args:
        teacher_logits: `[teachers, ..., classes]`, before any softmax.
        rule: `"entropy"`, `"confidence"` or `"oracle"`.
        labels: integer class ids `[...]`; `"oracle"` needs them.
        axis: the axis of the classes; not the first.

    Returns:
        `[teachers, ...]`, summing to 1 over the teachers (or to 0, see above), for
        `ensemble_logits` or to weigh a loss for each teacher.

    Raises:
        ValueError: if shapes do not fit or are empty, a dtype is wrong, the rule is
            unknown, or `"oracle"` lacks the labels.

    Example:
        >>> teachers = jnp.array([[[9.0, 0.0]], [[0.0, 0.0]]])
        >>> print(teacher_weights(teachers, rule="oracle", labels=jnp.array([1]))[:, 0])
        [0. 0.]
        >>> print(f"{teacher_weights(teachers)[0, 0]:.4f}")
        0.6664

    Reference:
        Kang, Mun, Han, "Towards Oracle Knowledge Distillation with Neural
        Architecture Search", 2019, arXiv 1911.13019 (the oracle).
    """
    axis = check_teachers(teacher_logits, axis)
    checks.one_of("rule", rule, RULES)
    if rule == "oracle":
        if labels is None:
            checks.refuse("labels", "class ids (rule 'oracle')", None)
        checks.integer("labels", labels, "class ids")
        checks.shape("labels", labels, _without(axis, teacher_logits)[1:])
        checks.below("labels", labels, teacher_logits.shape[axis])
        best = jnp.argmax(teacher_logits, axis)
        right = best == jnp.asarray(labels).astype(best.dtype)[None]
        right = right.astype(promote(teacher_logits).dtype)
        count = jnp.sum(right, 0, keepdims=True)
        return right / jnp.where(count == 0, 1, count)
    log_p = tempered_log_softmax(teacher_logits, 1.0, axis)
    if rule == "entropy":
        gap = jnp.where(jnp.exp(log_p) == 0, 0, log_p)
        return jax.nn.softmax(jnp.sum(jnp.exp(log_p) * gap, axis), 0)
    best = jnp.exp(jnp.max(log_p, axis))
    return best / jnp.sum(best, 0, keepdims=True)
