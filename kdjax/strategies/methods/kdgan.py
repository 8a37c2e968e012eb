"""KDGAN: classifier, teacher and critic, Wang et al., NeurIPS 2018."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.config import require
from kdjax.core.types import Model, Strategy
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network, init_networks
from kdjax.strategies.sampling import gumbel_softmax
from kdjax.strategies.supervision import (
    label_loss,
    one_hot_labels,
    require_same_classes,
)


def kdgan(
    student: Model,
    large: Model,
    critic: Model,
    *,
    steps: int,
    share: float = 0.5,
    student_weight: float = 1.0,
    large_weight: float = 1.0,
    label_weight: float = 1.0,
    temperature: float = 3.0,
    gumbel: float = 1.0,
    gumbel_end: float = 0.1,
    straight_through: bool = False,
    student_steps: int = 1,
    rate: float = 1e-3,
    axis_name: str | None = None,
) -> Strategy:
    """KDGAN: a critic separates true labels from those of student and large network.

    L_critic = -log D(x, y) - share * log(1 - D(x, y_student))
        - (1 - share) * log(1 - D(x, y_large))
    L_student = label_weight * CE(y, p) + share * log(1 - D(x, y_student))
        + student_weight * T^2 KL(p_large || p)
    L_large = label_weight * CE(y, p_large) + (1 - share) * log(1 - D(x, y_large))
        + large_weight * T^2 KL(p || p_large)

    The labels y_student and y_large are samples, relaxed by Gumbel noise. D is the
    sigmoid of the critic's logits, weighted by the label. The objective is as the
    survey describes it. The paper trains student and teacher on labels beforehand,
    which needs no `label_weight`: start them from runs and set it to 0.

    Args:
      student: learns from the critic and the large network.
      large: the teacher, which learns from the critic and the student.
      critic: a classifier of images, whose logits score the labels.
      share: of the student among the labels that are not true; 1 leaves the large
        network out of the critic's task.
      gumbel: temperature of the samples at the first step.
      gumbel_end: at the last; it falls geometrically.
      straight_through: samples are one-hot for the critic, as the labels are, with the
        gradient of the relaxed ones.
      student_steps: steps of both networks for one of the critic, whose rate is `rate`.

    Raises:
      ConfigError: an option out of its range.
    """
    critics.require_steps(student_steps)
    at = "strategy.options"
    require(0 <= share <= 1, f"{at}.share", "a number from 0 to 1", share)
    for name, value in (("gumbel", gumbel), ("gumbel_end", gumbel_end)):
        require(value > 0, f"{at}.{name}", "a number above 0", value)
    networks = {"student": student, "large": large}

    def init(key, batch):
        every, image = {**networks, "critic": critic}, batch.inputs["image"]
        made = init_networks(every, key, image)
        require_same_classes(every, made, image)
        return made

    def schedules(step: int):
        part = step / max(1, steps - 1)
        return {"gumbel": np.float32(gumbel * (gumbel_end / gumbel) ** part)}

    def loss(params, state, batch, schedules, key):
        image, keys = batch.inputs["image"], jax.random.split(key, 5)
        judged, state = apply_network("critic", critic, params, state, image, keys[0])
        logits, fake = {}, {}
        for i, (name, model) in enumerate(networks.items()):
            output, state = apply_network(
                name, model, params, state, image, keys[1 + i]
            )
            logits[name] = output.logits
            label = gumbel_softmax(
                keys[3 + i],
                output.logits,
                schedules["gumbel"],
                straight_through,
                axis_name,
            )
            fake[name] = jnp.sum(label * judged.logits, axis=-1)
        true = jnp.sum(
            one_hot_labels(batch, judged.logits.shape[-1]) * judged.logits, axis=-1
        )
        constants = jax.lax.stop_gradient(logits)
        shares = {"student": share, "large": 1 - share}
        weights = {"student": student_weight, "large": large_weight}
        values, metrics, sources = {}, {}, []
        for name, peer in (("student", "large"), ("large", "student")):
            hard = label_loss(logits[name], batch)
            against = losses.adversarial_student(fake[name], variant="saturating")
            soft = losses.softmax_kl(
                logits[name], constants[peer], temperature=temperature
            )
            values[name] = (
                label_weight * hard
                + shares[name] * against.mean()
                + weights[name] * soft.mean()
            )
            source = losses.adversarial_critic(fake[name], true).mean()
            sources.append(shares[name] * source)
            metrics |= {f"hard of {name}": hard, f"soft of {name}": soft.mean()}
        values["critic"] = jnp.sum(jnp.stack(sources))
        return values, (state, metrics)

    return Strategy(
        init,
        loss,
        schedules,
        turns=(("critic", 1), (("student", "large"), student_steps)),
        optim={"critic": critics.critic_optim(rate)},
    )
