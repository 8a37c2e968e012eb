"""Several networks by name: initialization and application to one batch."""

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
    """One network in training mode: its output, and the new state of all networks.

    Args:
      name: the network's entry of `params` and `state`.
      model: its model.
      params: parameters by network.
      state: the other collections by network, such as `batch_stats`; `{}` for none.
      inputs: the batch that it is applied to.
      key: of its dropout.
    """
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
        network_key = jax.random.fold_in(key, number)
        outputs[name], state = apply_network(
            name, model, params, state, inputs, network_key
        )
    return outputs, state
