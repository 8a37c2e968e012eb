"""The training state: everything that changes from step to step."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from kdjax.core.types import Array, PyTree, Teacher


class TrainState(NamedTuple):
    """All that changes during training; there is no random key and no data position.

    step: scalar int32, steps done.
    params, model_state: by network; the latter holds BatchNorm statistics and the like,
        and the state of a strategy that has no parameters.
    opt_state: of the optax transform over `params`.
    teacher: the state of a teacher that learns itself; empty otherwise.
    """

    step: Array
    params: dict[str, PyTree]
    model_state: dict[str, PyTree]
    opt_state: Any
    teacher: PyTree


def create_state(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    teacher: Teacher | None = None,
) -> TrainState:
    """The state before the first step, from `{network: variables}`."""
    params = {n: v["params"] for n, v in variables.items() if "params" in v}
    collections = {
        n: {k: x for k, x in v.items() if k != "params"} for n, v in variables.items()
    }
    carried = teacher.init(variables) if teacher else {}
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, collections, optimizer.init(params), carried)


def network_variables(state: TrainState, network: str) -> PyTree:
    """The variables with which a network is applied."""
    return join(state.params, state.model_state)[network]


def join(
    params: dict[str, PyTree], model_state: dict[str, PyTree]
) -> dict[str, PyTree]:
    """`{network: variables}` from its two parts."""
    return {n: {"params": x, **model_state[n]} for n, x in params.items()}
