"""Distillation of input gradients.

Gradient-based attention transfer, Zagoruyko and Komodakis 2017, arXiv 1612.03928, and
Jacobian matching, Srinivas and Fleuret 2018, arXiv 1803.00443.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Array, Batch, Model, Output, Strategy
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    apply_frozen,
    label_losses,
    require_live_teacher,
    require_teacher,
    task_loss,
)

# `(output, batch) -> [batch]`: the scores of which the gradients are taken.
Score = Callable[[Output, Batch], Array]


def attention_transfer_gradient(
    student: Model,
    *,
    teacher: Model | None,
    weight: float = 1.0,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
) -> Strategy:
    """Gradient-based attention transfer: both networks look at the same pixels.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight / 2 * |J - J_teacher|, J = dCE(y, p(x)) / dx

    Both networks are in evaluation mode for it, so that each example has a gradient of
    its own. Our references have no weight: 1 is ours.

    Raises:
      ConfigError: no live teacher, or one that takes images of another size.
    """

    def score(output: Output, batch: Batch) -> Array:
        return label_losses(output.logits, batch)

    weights = label_weight, soft_weight, temperature
    compare = losses.attention_transfer_gradient
    return _match(student, teacher, score, compare, weight, weights, labels=True)


def jacobian_matching(
    student: Model,
    *,
    teacher: Model | None,
    weight: float = 1.0,
    label_weight: float = 1.0,
    soft_weight: float = 1.0,
    temperature: float = 4.0,
    logit: str = "label",
    variant: str = "sum",
) -> Strategy:
    """Jacobian matching: one logit has the same input gradient in both networks.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * |J / |J| - J_teacher / |J_teacher||^2, J = dz_k(x) / dx

    Both networks are in evaluation mode for it, so that each example has a gradient of
    its own. Without the KL it is unstable. Our references have no weight: 1 is ours.

    Args:
      logit: k is the "label", or the first choice of the "teacher", for mixed images.
      variant: "sum", or the "mean" over the pixels, which depends on their number.

    Raises:
      ConfigError: no live teacher, one that takes images of another size, or another
        `logit` or `variant`.
    """
    at, variants = "strategy.options", ("sum", "mean")
    ok = logit in ("label", "teacher")
    require(ok, f"{at}.logit", "label or teacher", logit)
    require(variant in variants, f"{at}.variant", "sum or mean", variant)

    def score(output: Output, batch: Batch) -> Array:
        chosen = batch.labels
        if logit == "teacher":
            chosen = jnp.argmax(require_teacher(batch).logits, -1)
        return jnp.take_along_axis(output.logits, chosen[:, None], 1)[:, 0]

    def compare(ours: Array, theirs: Array) -> Array:
        return losses.jacobian_matching(ours, theirs, variant=variant)

    weights = label_weight, soft_weight, temperature
    labels = logit == "label" or bool(label_weight)
    return _match(student, teacher, score, compare, weight, weights, labels=labels)


def _match(
    student: Model,
    teacher: Model | None,
    score: Score,
    compare: Callable[[Array, Array], Array],
    weight: float,
    weights: tuple[float, float, float],
    *,
    labels: bool,
) -> Strategy:
    """The student's task, and a distance of the input gradients of two scores."""

    def init(key, batch):
        require_live_teacher(teacher, batch)
        return {"student": student.init(key, batch.inputs["image"])}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        frozen, fixed = require_live_teacher(teacher, batch)
        variables = {"params": params["student"], **state["student"]}
        output, state = apply_network("student", student, params, state, image, key)

        def ours(x: Array) -> Array:
            return score(apply_frozen(student, variables, x), batch)

        def theirs(x: Array) -> Array:
            return score(apply_frozen(frozen, fixed, x), batch)

        own = losses.input_gradient(ours, image)
        target = losses.input_gradient(theirs, batch.inputs["teacher_image"])
        distance = compare(own, jax.lax.stop_gradient(target)).mean()
        task = task_loss(output.logits, batch, *weights)
        total = task + weight * distance
        return {"student": total}, (state, {"task": task, "gradients": distance})

    return Strategy(init, loss, labels=labels)
