"""A critic on logits, Xu et al. 2018, arXiv 1709.00513."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import Optim
from kdjax.core.types import Model, Strategy
from kdjax.models import from_linen
from kdjax.strategies.networks import apply_network


def critic_on_logits(
    student: Model,
    *,
    classes: int,
    weight: float = 0.1,
    label_weight: float = 1.0,
    width: int = 64,
    student_steps: int = 1,
    rate: float = 1e-3,
) -> Strategy:
    """A critic separates the logits of teacher and student, and the student follows.

    L_student = label_weight * CE(y, p) + |z - z_teacher|_1 + weight * GAN loss

    Args:
      student: learns from the labels, the teacher's logits, and the critic.
      classes: number of logits that the critic reads, each standardized.
      width: units of each of the critic's two hidden layers.
      student_steps: steps of the student for one of the critic.
      rate: the critic's learning rate.
    """
    layers = [nn.Dense(width), nn.relu, nn.Dense(width), nn.relu, nn.Dense(1)]
    critic = from_linen(nn.Sequential(layers))

    def init(key, batch):
        one, two = jax.random.split(key)
        return {
            "student": student.init(one, batch.inputs["image"]),
            "critic": critic.init(two, jnp.zeros((1, classes))),
        }

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        logits, teacher = output.logits, batch.targets.logits

        def score(values):
            values = losses.standardize_logits(values)
            return apply_network("critic", critic, params, state, values, key)[0].logits

        pairs = losses.logit_l1(logits, teacher).mean()
        hard = losses.hard_cross_entropy(logits, batch.labels).mean()
        against = losses.adversarial_student(score(logits)).mean()
        own = losses.adversarial_critic(score(logits), score(teacher)).mean()
        values = {
            "student": label_weight * hard + pairs + weight * against,
            "critic": own,
        }
        return values, (state, {"logit_l1": pairs, "against critic": against})

    optim = {"critic": Optim(lr=rate, warmup=0)}
    turns = (("critic", 1), ("student", student_steps))
    return Strategy(init, loss, turns=turns, optim=optim)
