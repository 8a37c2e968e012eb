"""Dark knowledge permuted (DKPP), Furlanello et al. 2018, arXiv 1805.04770."""

import jax

from kdjax import losses, targets
from kdjax.config import require
from kdjax.core.types import Model, Strategy
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import label_loss, require_teacher


def dkpp(
    student: Model,
    *,
    weight: float = 1.0,
    label_weight: float = 1.0,
    temperature: float = 1.0,
) -> Strategy:
    """Labels, and the teacher's predictions with all but the largest shuffled.

    L = label_weight * CE(y, p) + weight * T^2 KL(permuted p_teacher || p)

    An ablation of born-again networks: what distillation gains from the teacher's
    confidence alone. The order is drawn anew for each example and step.

    Raises:
      ConfigError: an option outside of its range, or no teacher with all its logits.
    """
    at = "strategy.options"
    require(temperature > 0, f"{at}.temperature", "a number > 0", temperature)
    for name, value in (("weight", weight), ("label_weight", label_weight)):
        require(value >= 0, f"{at}.{name}", "a number >= 0", value)

    def init(key, batch):
        require_teacher(batch)
        return {"student": student.init(key, batch.inputs["image"])}

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        logits = require_teacher(batch, output.logits.shape[-1]).logits
        own_key = jax.random.fold_in(key, 1)
        permuted = targets.permute_dark_knowledge(own_key, logits)
        hard = label_loss(output.logits, batch)
        soft = losses.softmax_kl(output.logits, permuted, temperature=temperature)
        total = label_weight * hard + weight * soft.mean()
        return {"student": total}, (state, {"hard": hard, "soft": soft.mean()})

    return Strategy(init, loss)
