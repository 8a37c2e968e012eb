"""Factor transfer (FT), Kim et al. 2018, arXiv 1802.04977.

`paraphraser` is the stage before, and `factor_transfer` that of the student.
"""

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import Optim, require
from kdjax.core.types import Array, Model, Strategy
from kdjax.models.paraphraser import Convolutions, translator
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import (
    apply_frozen,
    find_map,
    require_teacher,
    task_loss,
    trace_output,
)

_AT = "strategy.options"
_NETWORK = "networks.paraphraser.model"


def paraphraser(
    student: Model, paraphraser: Model, *, optim: Optim, tap: str = "stage3"
) -> Strategy:
    """The paraphraser, an auto-encoder of feature maps: L = mean (P(F) - F)^2.

    The maps are those of the run's model, which does not move. So it is the teacher:
    its `weights` are those of a trained one.

    Args:
      optim: the optimizer of the run.
      tap: the last map of the teacher.

    Raises:
      ConfigError: a tap that is no map, or one of other channels than the paraphraser.
    """

    def init(key, batch):
        image = batch.inputs["image"]
        one, two = jax.random.split(key)
        variables, own = student.init(one, image), paraphraser.init(two, image)
        features = find_map(trace_output(student, variables, image), tap, f"{_AT}.tap")
        _require_channels(own, features)
        return {"student": variables, "paraphraser": own}

    def loss(params, state, batch, schedules, key):
        variables = {"params": params["student"], **state["student"]}
        output = apply_frozen(student, variables, batch.inputs["image"])
        features = jax.lax.stop_gradient(find_map(output, tap, f"{_AT}.tap"))
        made, state = apply_network(
            "paraphraser", paraphraser, params, state, features, key
        )
        error = jnp.mean(jnp.square(made.taps["map"] - features))
        return {"paraphraser": error}, (state, {"reconstruction": error})

    still = dataclasses.replace(optim, lr=0.0, wd=0.0, parameters=())
    return Strategy(init, loss, labels=False, optim={"student": still})


def factor_transfer(
    student: Model,
    paraphraser: Model,
    *,
    axis_name: str | None,
    tap: str = "stage3",
    teacher_tap: str = "",
    weight: float = 200.0,
    label_weight: float = 1.0,
    soft_weight: float = 0.0,
    temperature: float = 4.0,
) -> Strategy:
    """Factor transfer: a translator makes the teacher's factors of the student's map.

    L = label_weight * CE(y, p) + soft_weight * KL(p_teacher || p)
        + weight * mean |T(s) / |T(s)| - P(t) / |P(t)||

    The translator T learns with the student. The paraphraser P is frozen.

    Args:
      tap: the student's last map.
      teacher_tap: the teacher's, of the same positions. Empty: `tap`.
      weight: that of RepDistiller.

    Raises:
      ConfigError: no frozen paraphraser, a tap that is no map, or maps of other sizes.
    """

    def target_of(batch):
        """The teacher's map, and the variables of the paraphraser."""
        live = "paraphraser" in batch.frozen
        field = "networks.paraphraser.frozen"
        require(live, field, "True, with the weights of a run that trained it", False)
        name = "teacher_tap" if teacher_tap else "tap"
        theirs = find_map(require_teacher(batch), teacher_tap or tap, f"{_AT}.{name}")
        _require_channels(batch.frozen["paraphraser"], theirs)
        return theirs, batch.frozen["paraphraser"]

    def init(key, batch):
        image = batch.inputs["image"]
        one, two = jax.random.split(key)
        variables = student.init(one, image)
        theirs, frozen = target_of(batch)
        ours = find_map(trace_output(student, variables, image), tap, f"{_AT}.tap")
        expected = f"a map of the teacher's size {theirs.shape[1:3]}"
        require(ours.shape[1:3] == theirs.shape[1:3], f"{_AT}.tap", expected, tap)
        factors = trace_output(paraphraser, frozen, theirs).taps["factor"]
        made = translator(ours.shape[-1], factors.shape[-1], axis_name)
        own = made.init(two, jnp.zeros(ours.shape, ours.dtype))
        return {"student": variables, "translator": own}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        theirs, frozen = target_of(batch)
        factor = apply_frozen(paraphraser, frozen, theirs).taps["factor"]
        ours = find_map(output, tap, f"{_AT}.tap")
        made: Convolutions = translator(ours.shape[-1], factor.shape[-1], axis_name)
        own = {"params": params["translator"], **state["translator"]}
        translated, new = made.apply(own, ours, train=True, mutable=["batch_stats"])
        value = losses.factor_transfer(translated, factor).mean()
        task = task_loss(output.logits, batch, label_weight, soft_weight, temperature)
        metrics = {"task": task, "factors": value}
        state = {**state, "translator": dict(new)}
        return {"student": task + weight * value}, (state, metrics)

    return Strategy(init, loss, labels=bool(label_weight))


def _require_channels(variables, features: Array) -> None:
    width = variables["params"]["decoder"]["Conv_2"]["kernel"].shape[-1]
    expected = f"{features.shape[-1]}, the channels of the teacher's map"
    require(width == features.shape[-1], f"{_NETWORK}.width", expected, width)
