"""Online distillation: teacher and student learn together."""

import jax

from kdjax import losses
from kdjax.core.types import Model, Strategy
from kdjax.strategies.networks import apply_networks, init_networks
from kdjax.strategies.supervision import label_loss


def online(
    student: Model,
    large: Model,
    *,
    weight: float = 1.0,
    label_weight: float = 1.0,
    temperature: float = 2.0,
) -> Strategy:
    """Online distillation: the large network learns from labels alone.

    L_large = CE(y, p_large)
    L_student = label_weight * CE(y, p) + weight * KL(p_large || p)

    Args:
      student: learns from the labels and from the large network as it is at each step.
      large: the teacher. Its training is that of the large network alone.
    """
    networks = {"student": student, "large": large}

    def init(key, batch):
        return init_networks(networks, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        outputs, state = apply_networks(networks, params, state, image, key)
        ours, theirs = outputs["student"].logits, outputs["large"].logits
        teacher = jax.lax.stop_gradient(theirs)
        soft = losses.softmax_kl(ours, teacher, temperature=temperature).mean()
        hard = label_loss(ours, batch)
        values = {
            "student": label_weight * hard + weight * soft,
            "large": label_loss(theirs, batch),
        }
        agree = (ours.argmax(-1) == theirs.argmax(-1)).mean()
        return values, (state, {"soft": soft, "hard": hard, "agreement": agree})

    return Strategy(init, loss)
