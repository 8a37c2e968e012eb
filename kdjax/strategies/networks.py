"""Several networks by name: initialization and application to one batch."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from kdjax.core.seeds import map_seeds
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


def apply_copies(
    names: Sequence[str],
    model: Model,
    params: Variables,
    state: Variables,
    inputs: PyTree,
    key: Array,
    *,
    unroll: bool | None = None,
) -> tuple[dict[str, Output], Variables]:
    """`apply_networks` of networks that all have one model, in one mapped call.

    Its values are those of the loop. Every network costs its gradient, so that with
    turns, where one of them moves, the loop is cheaper.

    Args:
      names: the networks, in the order of `apply_networks`.
      model: the model of each.
      unroll: as in `kdjax.core.seeds.map_seeds`; None: on CPU.
    """

    def one(variables: PyTree, key: Array) -> tuple[Output, PyTree]:
        return model.apply(variables, inputs, train=True, rngs={"dropout": key})

    unroll = jax.default_backend() == "cpu" if unroll is None else unroll
    variables = [{"params": params[name], **state[name]} for name in names]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *variables)
    numbers = jnp.arange(len(names))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    every = map_seeds(one, (0, 0), len(names), unroll=unroll)(stacked, keys)
    each = [jax.tree.map(lambda x, i=i: x[i], every) for i in range(len(names))]
    outputs = {name: output for name, (output, _) in zip(names, each, strict=True)}
    new = {name: new for name, (_, new) in zip(names, each, strict=True)}
    return outputs, {**state, **new}
