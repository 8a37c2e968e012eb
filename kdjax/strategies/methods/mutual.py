"""Deep mutual learning (DML), Zhang et al. 2018, arXiv 1706.00384."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Array, Model, Strategy
from kdjax.strategies.networks import apply_copies, apply_networks, init_networks
from kdjax.strategies.supervision import label_loss


def mutual(
    networks: Mapping[str, Model],
    *,
    peers: int = 0,
    weight: float = 1.0,
    temperature: float = 1.0,
    in_turn: bool = False,
) -> Strategy:
    """Deep mutual learning: labels, and the predictions of the peers.

    L_k = CE(y, p_k) + weight * mean over the peers l of KL(p_l || p_k)

    Args:
      networks: the student and its peers by name. A peer's predictions are constants.
      peers: number of networks where the student stands alone: copies of it, each with
        an initialization of its own, applied in one mapped call. 0 takes 2.
      in_turn: a step moves one network, the next step the next. The paper moves one
        after another on the same batch.

    Raises:
      ConfigError: fewer than 2 networks, or both named networks and `peers`.
    """
    at, student = "strategy.options.peers", networks["student"]
    equal = len(networks) == 1
    if equal:
        require(peers == 0 or peers >= 2, at, "at least 2 networks", peers)
        copies = {f"peer{i}": student for i in range(1, peers or 2)}
        networks = {"student": student, **copies}
    else:
        require(peers == 0, at, "0, as `networks` names the peers", peers)

    def init(key, batch):
        return init_networks(networks, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        if equal and not in_turn:
            names = [*networks]
            outputs, state = apply_copies(names, student, params, state, image, key)
        else:
            outputs, state = apply_networks(networks, params, state, image, key)
        logits = {name: output.logits for name, output in outputs.items()}
        constants = jax.lax.stop_gradient(logits)

        def one(name: str) -> Array:
            own = logits[name]
            soft = [
                losses.softmax_kl(own, constants[peer], temperature=temperature).mean()
                for peer in networks
                if peer != name
            ]
            return label_loss(own, batch) + weight * jnp.mean(jnp.stack(soft))

        values = {name: one(name) for name in networks}
        metrics = {f"loss of {name}": value for name, value in values.items()}
        return values, (state, metrics)

    turns = tuple((name, 1) for name in networks) if in_turn else ()
    return Strategy(init, loss, turns=turns)
