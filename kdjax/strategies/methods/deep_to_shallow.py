"""Be Your Own Teacher (BYOT), Zhang et al. 2019, arXiv 1905.08094."""

import jax
import jax.numpy as jnp

from kdjax import losses, metrics, targets
from kdjax.config import require, require_known
from kdjax.core.types import Array, Batch, Model, Output, PyTree, Strategy
from kdjax.models import exits
from kdjax.models.layers import mean_pool
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import find_tap, label_loss


def deep_to_shallow(
    student: Model,
    *,
    classes: int,
    axis_name: str | None,
    taps: str | tuple[str, ...] = ("stage1", "stage2"),
    features: str = "embedding",
    alpha: float = 0.1,
    temperature: float = 3.0,
    hint_weight: float = 1e-6,
    hint_variant: str = "partial",
    norm: str = "batch",
) -> Strategy:
    """Self-distillation: the deepest exit teaches exits at the shallower layers.

    L = CE(y, q_C) + sum over the exits i < C of
        (1 - alpha) CE(y, q_i) + alpha T^2 KL(q_C || q_i) + hint_weight |F_i - F_C|^2

    The last exit C is the network itself. Its predictions and features are constants
    for the others. The networks `exit1`, ... are the heads of the exits
    (`kdjax.models.exits`). The trained student is the network without them.

    Args:
      student: learns below each exit from the loss of that exit too.
      classes: number of logits of each exit.
      axis_name: the pmap axis over which BatchNorm of the heads takes its statistics.
      taps: the student's taps with an exit, from the shallowest to the deepest.
      features: the tap with the features of the last exit, pooled over positions.
      alpha: weight of the soft targets; 1 - alpha is that of the labels.
      hint_weight: the published 1e-6 belongs to `hint_variant` partial, a sum.
      hint_variant: of `hint_l2`: partial, mean or fitnets.
      norm: of the heads, batch or group.

    Raises:
      ConfigError: an option outside of its range, or a tap that the student has not.
    """
    taps = (taps,) if isinstance(taps, str) else taps
    at = "strategy.options"
    require(bool(taps), f"{at}.taps", "at least one tap of the student", taps)
    require(0 <= alpha <= 1, f"{at}.alpha", "a number from 0 to 1", alpha)
    require(temperature > 0, f"{at}.temperature", "a number > 0", temperature)
    require(hint_weight >= 0, f"{at}.hint_weight", "a number >= 0", hint_weight)
    variants = ("partial", "mean", "fitnets")
    require_known(hint_variant, variants, f"{at}.hint_variant")
    require_known(norm, ("batch", "group"), f"{at}.norm")
    names = dict(zip(exits.exit_names(len(taps)), taps, strict=True))

    def deepest(output: Output) -> tuple[Array, Model]:
        """The features of the last exit, and the head of an exit with as many."""
        last = mean_pool(find_tap(output, features, f"{at}.features"))
        return last, exits.exit_head(classes, last.shape[-1], norm, axis_name)

    def init(key: Array, batch: Batch) -> dict[str, PyTree]:
        image = batch.inputs["image"]
        networks = {"student": student.init(key, image)}
        output, _ = student.apply(networks["student"], image, train=False, rngs=None)
        _, head = deepest(output)
        for number, (name, tap) in enumerate(names.items(), start=1):
            below = find_tap(output, tap, f"{at}.taps")
            networks[name] = head.init(jax.random.fold_in(key, number), below)
        return networks

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        last, head = deepest(output)
        teacher, hint = jax.lax.stop_gradient((output.logits, last))
        total = own = label_loss(output.logits, batch)
        logits, parts = [], {"loss of the last exit": own}
        for name, tap in names.items():
            below = output.taps[tap]
            shallow, state = apply_network(name, head, params, state, below, key)
            hard = label_loss(shallow.logits, batch)
            soft = losses.softmax_kl(shallow.logits, teacher, temperature=temperature)
            near = losses.hint_l2(
                shallow.taps["embedding"], hint, variant=hint_variant
            ).mean()
            value = (1 - alpha) * hard + alpha * soft.mean() + hint_weight * near
            total += value
            logits.append(shallow.logits)
            parts |= {f"loss of {name}": value, f"hint of {name}": near}
        every = jnp.stack([*logits, output.logits])
        scores = {
            f"accuracy of {name}": metrics.accuracy(x, batch.labels).mean()
            for name, x in (
                *zip([*names, "the last exit"], every, strict=True),
                ("the ensemble", targets.ensemble_logits(every)),
            )
        }
        # The heads share the student's loss, so they need no scalar of their own.
        return {"student": total}, (state, {**parts, **scores})

    return Strategy(init, loss)
