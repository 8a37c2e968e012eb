"""The training state: everything that changes from step to step."""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from kdjax.core.average import start_average
from kdjax.core.types import Array, PyTree, Teacher


class TrainState(NamedTuple):
    """All that changes during training; there is no random key and no data position.

    step: scalar int32, steps done.
    params, model_state: by network; the latter holds BatchNorm statistics and the like,
        and the state of a strategy that has no parameters.
    opt_state: of the optax transform over `params`.
    teacher: the state of a teacher that learns itself; empty otherwise.
    averages: of the variables of networks whose optimizer has `ema`, as
        `kdjax.core.average.start_average` makes them.
    """

    step: Array
    params: dict[str, PyTree]
    model_state: dict[str, PyTree]
    opt_state: Any
    teacher: PyTree
    averages: dict[str, PyTree] = {}


def create_state(
    variables: dict[str, PyTree],
    optimizer: optax.GradientTransformation,
    teacher: Teacher | None = None,
    averaged: Collection[str] = (),
) -> TrainState:
    """The state before the first step, from `{network: variables}`.

    averaged: the networks with a moving average.
    """
    params = {n: v["params"] for n, v in variables.items() if "params" in v}
    collections = {
        n: {k: x for k, x in v.items() if k != "params"} for n, v in variables.items()
    }
    carried = teacher.init(variables) if teacher else {}
    step = jnp.zeros((), jnp.int32)
    averages = {name: start_average(variables[name]) for name in averaged}
    opt_state = optimizer.init(params)
    return TrainState(step, params, collections, opt_state, carried, averages)


def network_variables(state: TrainState, network: str) -> PyTree:
    """The variables that are evaluated of a network: their average where it has one."""
    if network in state.averages:
        return state.averages[network]["average"]
    return join(state.params, state.model_state)[network]


def join(
    params: dict[str, PyTree], model_state: dict[str, PyTree]
) -> dict[str, PyTree]:
    """`{network: variables}` from its two parts."""
    return {n: {"params": x, **model_state[n]} for n, x in params.items()}
