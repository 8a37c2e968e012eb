"""Graph distillation of several teachers, Zhang and Peng 2018, arXiv 1804.10069."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Output, Strategy
from kdjax.models import from_linen
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    find_tap,
    label_loss,
    require_members,
    trace_output,
)


def teacher_graph(
    student: Model,
    *,
    axis_name: str | None,
    tap: str = "embedding",
    teacher_tap: str = "",
    soft_weight: float = 1.0,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    temperature: float = 4.0,
    width: int = 64,
) -> Strategy:
    """Several teachers as a graph: their predictions, and pairs of their features.

    L_student = label_weight * CE(y, p) + soft_weight * sum_m w_m KL(p_m || p)
        + feature_weight * mean over pairs m < l of MMD(B(F_m, F_l), g(F))
    L_heads = sum_m CE(y, p_m)

    p_m is a linear head on the teacher's features, trained with the student: teachers
    of other tasks have no classes of these data. The weights w = softmax(a) and the
    map g learn by the student's loss, and p_m is a constant there. B is compact
    bilinear pooling. The paper matches distributions by an earth mover's distance; the
    KL and the weights are ours.

    Args:
      tap, teacher_tap: features of the student and of each teacher, averaged over
        positions. Empty: as the student's.
      temperature: of the KL, which has the factor of its square.
      width: of B and g.

    Raises:
      ConfigError: one teacher alone, a tap that is none, or no width.
    """
    at = "strategy.options"
    require(width >= 1, f"{at}.width", "at least 1", width)

    def features(output: Output, batch) -> tuple[Array, list[Array]]:
        """Those of the student and of each teacher, `[batch, channels]`."""
        ours = _pooled(find_tap(output, tap, f"{at}.tap"))
        members, name = require_members(batch), teacher_tap or tap
        taps = (find_tap(member, name, f"{at}.teacher_tap") for member in members)
        return ours, [_pooled(x) for x in taps]

    def init(key, batch):
        image = batch.inputs["image"]
        variables = student.init(key, image)
        output = trace_output(student, variables, image)
        ours, theirs = jax.eval_shape(features, output, batch)
        classes, keys = output.logits.shape[-1], jax.random.split(key, len(theirs) + 1)
        heads = {
            str(m): _linear(classes).init(k, jnp.zeros(x.shape))["params"]
            for m, (x, k) in enumerate(zip(theirs, keys[1:], strict=True))
        }
        return {
            "student": variables,
            "map": _linear(width).init(keys[0], jnp.zeros(ours.shape)),
            "edges": {"params": {"logits": jnp.zeros(len(theirs))}},
            "heads": {"params": heads},
        }

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        ours, theirs = features(output, batch)
        classes = output.logits.shape[-1]
        logits = [
            _apply(params["heads"][str(m)], x, classes) for m, x in enumerate(theirs)
        ]
        heads = [label_loss(x, batch) for x in logits]
        soft = [
            losses.softmax_kl(
                output.logits, jax.lax.stop_gradient(x), temperature=temperature
            ).mean()
            for x in logits
        ]
        edges = jax.nn.softmax(params["edges"]["logits"])
        mapped = collectives.gather(_apply(params["map"], ours, width), axis_name)
        pairs = []
        for first, second in itertools.combinations(theirs, 2):
            # One key, so that the hashes are the same at every step.
            fused = losses.compact_bilinear(
                first, second, key=jax.random.key(0), width=width
            )
            fused = collectives.gather(fused, axis_name)
            apart = losses.mmd(mapped, fused, axis_name=())
            pairs.append(apart.mean())
        parts = {
            "hard": label_loss(output.logits, batch),
            "soft": jnp.sum(edges * jnp.stack(soft)),
            "features": jnp.mean(jnp.stack(pairs)),
        }
        weights = {"hard": label_weight, "soft": soft_weight}
        weights["features"] = feature_weight
        total = jnp.sum(jnp.stack([weights[k] * x for k, x in parts.items()]))
        metrics = {f"weight of {m}": w for m, w in enumerate(edges)}
        values = {"student": total, "heads": jnp.sum(jnp.stack(heads))}
        return values, (state, {**parts, **metrics})

    return Strategy(init, loss)


def _linear(width: int) -> Model:
    return from_linen(nn.Dense(width))


def _apply(params, x: Array, width: int) -> Array:
    return _linear(width).apply({"params": params}, x, train=True, rngs=None)[0].logits


def _pooled(x: Array) -> Array:
    """`[batch, ..., channels]` to `[batch, channels]`, the mean over positions."""
    return x.reshape(len(x), -1, x.shape[-1]).mean(1)
