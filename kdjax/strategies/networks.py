"""Several networks by name: initialized and applied together."""

from collections.abc import Mapping

import jax

from kdjax.core.types import Array, Model, Output, PyTree

Variables = dict[str, PyTree]


def init_networks(networks: Mapping[str, Model], key: Array, inputs: PyTree) -> PyTree:
    """`{network: variables}`, each network drawn with a key of its own."""
    return {
        name: model.init(jax.random.fold_in(key, number), inputs)
        for number, (name, model) in enumerate(networks.items())
    }


def apply_network(
    name: str,
    model: Model,
    params: Variables,
    state: Variables,
    inputs: PyTree,
    key: Array,
) -> tuple[Output, Variables]:
    """One network in training mode: its output, and `state` with its part renewed."""
    variables = {"params": params[name], **state[name]}
    output, new = model.apply(variables, inputs, train=True, rngs={"dropout": key})
    return output, {**state, name: new}


def apply_networks(
    networks: Mapping[str, Model],
    params: Variables,
    state: Variables,
    inputs: PyTree,
    key: Array,
) -> tuple[dict[str, Output], Variables]:
    """All networks on the same inputs: `{network: output}` and the new state."""
    outputs = {}
    for number, (name, model) in enumerate(networks.items()):
        own = jax.random.fold_in(key, number)
        outputs[name], state = apply_network(name, model, params, state, inputs, own)
    return outputs, state
