"""Feature-map-level online adversarial KD, Chung et al. 2020, arXiv 2002.01775."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import ConfigError, require
from kdjax.core.types import Model, Output, Strategy
from kdjax.models import Projector, make_projector
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_networks, init_networks
from kdjax.strategies.supervision import (
    find_tap,
    label_loss,
    require_same_classes,
    trace_output,
)


def feature_map_online(
    networks: Mapping[str, Model],
    *,
    tap: str = "stage3",
    weight: float = 1.0,
    adversarial_weight: float = 1.0,
    temperature: float = 3.0,
    width: int = 64,
    rate: float = 1e-3,
) -> Strategy:
    """Networks teach each other by their predictions, and by critics of feature maps.

    L_k = CE(y, p_k) + weight * mean over the peers l of T^2 KL(p_l || p_k)
        + adversarial_weight * (D_j(T_kj(F_k)) - 1)^2 / 2
    L_D_j = (D_j(F_j) - 1)^2 / 2 + D_j(T_kj(F_k))^2 / 2

    The networks stand in a cycle: k follows j, the next one. A transfer, T_kj, is a 1x1
    convolution to the width of j. It learns with k. Here a network takes one step for
    all its losses. The paper takes two, with learning rates of their own.

    Args:
      networks: the student and its peers by name, two or more.
      tap: the feature maps, of one size in all networks.
      width: channels of each critic.
      rate: the learning rate of critics and transfers.

    Raises:
      ConfigError: one network alone, or taps that do not exist or fit.
    """
    expected = "a peer of the student, as networks.peer"
    require(len(networks) >= 2, "networks", expected, "none")
    names = [*networks]
    # A cycle: two networks have two directed pairs, three have three.
    pairs = dict(zip(names, [*names[1:], names[0]], strict=True))
    critic = critics.map_critic(width)

    def maps(outputs: Mapping[str, Output]):
        at = "strategy.options.tap"
        return {name: find_tap(output, tap, at) for name, output in outputs.items()}

    def init(key, batch):
        image = batch.inputs["image"]
        made = init_networks(networks, key, image)
        require_same_classes(networks, made, image)
        features = maps(
            {name: trace_output(networks[name], made[name], image) for name in names}
        )
        for number, (name, other) in enumerate(pairs.items()):
            one, two = jax.random.split(jax.random.fold_in(key, len(names) + number))
            transfer = _transfer(features[name], features[other], name)
            made[f"transfer of {name}"] = transfer.init(one)
            blank = jnp.zeros(features[other].shape, features[other].dtype)
            made[f"critic of {other}"] = critic.init(two, blank)
        return made

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        outputs, state = apply_networks(networks, params, state, image, key)
        features = maps(outputs)
        constants = jax.lax.stop_gradient(outputs)
        values, metrics = {}, {}
        for name, other in pairs.items():
            logits = outputs[name].logits
            soft = [
                losses.softmax_kl(
                    logits, constants[peer].logits, temperature=temperature
                ).mean()
                for peer in names
                if peer != name
            ]
            transfer = _transfer(features[name], features[other], name)
            own = params[f"critic of {other}"]
            map_params = {"params": params[f"transfer of {name}"]}
            fake, _ = transfer.apply(map_params, features[name])
            # The critic is a constant to the network, and the maps to the critic.
            fooled = critics.score(critic, jax.lax.stop_gradient(own), fake)
            scores = (
                critics.score(critic, own, jax.lax.stop_gradient(x))
                for x in (fake, features[other])
            )
            against = losses.adversarial_student(fooled, variant="least_squares").mean()
            values[name] = (
                label_loss(logits, batch)
                + weight * jnp.mean(jnp.stack(soft))
                + adversarial_weight * against
            )
            source = losses.adversarial_critic(*scores, variant="least_squares")
            values[f"critic of {other}"] = source.mean()
            metrics[f"against critic of {other}"] = against
        return values, (state, metrics)

    own = [f"critic of {name}" for name in names] + [f"transfer of {x}" for x in names]
    return Strategy(init, loss, optim={x: critics.critic_optim(rate) for x in own})


def _transfer(features, target, name: str) -> Projector:
    try:
        return make_projector("linear", features.shape, target.shape)
    except ValueError as error:
        field = "model" if name == "student" else f"networks.{name}"
        expected = f"feature maps {target.shape[1:3]} pixels in size, as the next peer"
        raise ConfigError(field, expected, features.shape[1:3]) from error
