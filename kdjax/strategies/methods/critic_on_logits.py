"""A critic on logits, Xu et al. 2018, arXiv 1709.00513."""

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.core.types import Model, Strategy
from kdjax.strategies import critics
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import label_loss, require_teacher, trace_output


def critic_on_logits(
    student: Model,
    *,
    weight: float = 0.1,
    label_weight: float = 1.0,
    class_weight: float = 1.0,
    width: int = 64,
    student_steps: int = 1,
    rate: float = 1e-3,
) -> Strategy:
    """A critic separates the logits of teacher and student, and the student follows.

    L_student = label_weight * CE(y, p) + |z - z_teacher|_1 + weight * (
        GAN loss + class_weight * CE(y, critic's class of z))
    L_critic = GAN loss + class_weight * CE(y, critic's class of z and z_teacher)

    The critic reads standardized logits. The weights are ours, not the paper's.

    Args:
      student: learns from the labels, the teacher's logits, and the critic.
      class_weight: of the classes that the critic predicts beside the source; 0 makes
        it a plain critic.
      width: units of each of the critic's two hidden layers.
      student_steps: steps of the student for one of the critic.
      rate: the critic's learning rate.

    Raises:
      ConfigError: no teacher, one of other classes, or no step of the student.
    """
    critics.require_steps(student_steps)

    def make_critic(classes: int) -> Model:
        return critics.mlp_critic(width, outputs=1 + classes)

    def init(key, batch):
        one, two = jax.random.split(key)
        variables = student.init(one, batch.inputs["image"])
        output = trace_output(student, variables, batch.inputs["image"])
        classes = output.logits.shape[-1]
        require_teacher(batch, classes)
        critic = make_critic(classes).init(two, jnp.zeros((1, classes)))
        return {"student": variables, "critic": critic}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        logits, teacher = output.logits, batch.targets.logits
        critic = make_critic(logits.shape[-1])

        def judge(values):
            values = losses.standardize_logits(values)
            outputs = critics.judge(critic, params["critic"], values)
            return outputs[:, 0], label_loss(outputs[:, 1:], batch)

        ours, our_class = judge(logits)
        theirs, their_class = judge(teacher)
        pairs = losses.logit_l1(logits, teacher).mean()
        hard = label_loss(logits, batch)
        against = losses.adversarial_student(ours).mean()
        source = losses.adversarial_critic(ours, theirs).mean()
        adversarial = against + class_weight * our_class
        values = {
            "student": label_weight * hard + pairs + weight * adversarial,
            "critic": source + class_weight * (our_class + their_class),
        }
        return values, (state, {"logit_l1": pairs, "against critic": against})

    optim = {"critic": critics.critic_optim(rate)}
    turns = (("critic", 1), ("student", student_steps))
    return Strategy(init, loss, turns=turns, optim=optim)
