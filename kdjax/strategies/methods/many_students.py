"""Many students under one teacher, whose predictions are computed once a step."""

from collections.abc import Mapping

import jax.numpy as jnp

from kdjax.config import require
from kdjax.core.types import Model, Strategy
from kdjax.strategies.networks import apply_networks, init_networks
from kdjax.strategies.supervision import (
    require_same_classes,
    require_teacher,
    task_loss,
)


def many_students(
    networks: Mapping[str, Model],
    *,
    soft_weight: float = 0.9,
    label_weight: float = 0.1,
    temperature: float = 4.0,
) -> Strategy:
    """Each student learns from one teacher, as if alone, on the same views.

    L_k = label_weight * CE(y, p_k) + soft_weight * KL(p_teacher || p_k)

    A step costs one forward pass of the teacher, and one step of each student.

    Args:
      networks: the student, which is evaluated, and others by name. All are saved:
        `kdjax evaluate RUN --network NAME` measures another.
      soft_weight: of the KL, which has the factor of the squared temperature.
      label_weight: of the labels; 0 needs none.

    Raises:
      ConfigError: no network beside the student, one of other classes, or no teacher.
    """
    expected = "one network or more beside the student"
    require(len(networks) > 1, "networks", expected, "none")

    def init(key, batch):
        image = batch.inputs["image"]
        variables = init_networks(networks, key, image)
        require_same_classes(networks, variables, image)
        require_teacher(batch)
        return variables

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        outputs, state = apply_networks(networks, params, state, image, key)
        teacher = require_teacher(batch).logits.argmax(-1)
        values, metrics = {}, {}
        for name, output in outputs.items():
            weights = label_weight, soft_weight, temperature
            values[name] = task_loss(output.logits, batch, *weights)
            agree = output.logits.argmax(-1) == teacher
            metrics[f"loss of {name}"] = values[name]
            metrics[f"agreement of {name}"] = jnp.mean(agree)
        return values, (state, metrics)

    return Strategy(init, loss, labels=bool(label_weight))
