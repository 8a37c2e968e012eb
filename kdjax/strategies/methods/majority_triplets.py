"""Learning from several teachers, You et al., KDD 2017, doi 10.1145/3097983.3098135."""

import jax
import jax.numpy as jnp

from kdjax import losses, targets
from kdjax.config import require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Output, Strategy
from kdjax.strategies.networks import apply_network, init_networks
from kdjax.strategies.supervision import find_tap, label_loss, require_members


def majority_triplets(
    student: Model,
    *,
    axis_name: str | None,
    tap: str = "embedding",
    teacher_taps: tuple = (),
    weight: float = 1.0,
    label_weight: float = 1.0,
    soft_weight: float = 1.0,
    temperature: float = 4.0,
    margin: float = 0.2,
    triplets: int = 0,
) -> Strategy:
    """Several teachers: their mean prediction, and their vote on which pairs are close.

    L = label_weight * CE(y, p) + soft_weight * KL(mean of the p_m || p)
        + weight * mean over triplets of max(0, d_ij - d_ik + margin)

    Most teachers have j nearer to i than k in a triplet; ties leave it out. d is the
    squared distance of pooled features of unit length. The abstract has no weights,
    margin or distance: these are ours.

    Args:
      tap: name of the student's features; maps are averaged over positions.
      teacher_taps: one name for each teacher, or one for all. Empty: `tap`.
      weight: of the triplets.
      temperature: of the predictions, before their mean.
      triplets: pairs (j, k) that are drawn for each i; 0 takes all pairs.

    Raises:
      ConfigError: one teacher alone, or a tap that is none.
    """
    at = "strategy.options"
    require(margin > 0, f"{at}.margin", "a number > 0", margin)
    require(triplets >= 0, f"{at}.triplets", "0 (all) or more", triplets)

    def features(output: Output, members: list[Output]) -> list[Array]:
        """Those of the student, then of each teacher, of the global batch."""
        names, count = teacher_taps or (tap,), len(members)
        expected = f"one tap, or {count}, one for each teacher"
        require(len(names) in (1, count), f"{at}.teacher_taps", expected, names)
        names = names * count if len(names) == 1 else names
        taps = [find_tap(output, tap, f"{at}.tap")]
        for member, name in zip(members, names, strict=True):
            taps.append(find_tap(member, name, f"{at}.teacher_taps"))
        return [collectives.gather(_pooled(x), axis_name) for x in taps]

    def init(key, batch):
        require_members(batch)
        return init_networks({"student": student}, key, batch.inputs["image"])

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        members = require_members(batch)
        ours, first, *others = features(output, members)
        pairs = None
        if triplets:
            shape = (len(ours), triplets, 2)
            pairs = jax.random.randint(key, shape, 0, len(ours))
        relation = losses.triplet_relation(
            ours,
            first,
            other_teachers=others,
            triplets=pairs,
            margin=margin,
            axis_name=(),
        )
        stacked = jnp.stack([member.logits for member in members])
        mean = targets.ensemble_logits(stacked, temperature=temperature)
        parts = {
            "hard": label_loss(output.logits, batch),
            "soft": losses.softmax_kl(
                output.logits, mean, temperature=temperature
            ).mean(),
            "triplets": relation.mean(),
        }
        weights = {"hard": label_weight, "soft": soft_weight, "triplets": weight}
        total = jnp.sum(jnp.stack([weights[k] * x for k, x in parts.items()]))
        return {"student": total}, (state, parts)

    return Strategy(init, loss)


def _pooled(x: Array) -> Array:
    """`[batch, ..., channels]` to `[batch, channels]`, the mean over positions."""
    return x.reshape(len(x), -1, x.shape[-1]).mean(1)
