"""Label-free feature matching of several teachers, Theia 2024, arXiv 2407.20179."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from kdjax import losses
from kdjax.config import require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Strategy
from kdjax.models import from_linen
from kdjax.strategies.methods.vid import at_one_size
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import find_tap, require_teacher, trace_output
from kdjax.teachers.ensemble import split_members

# A standard deviation below this counts as this.
LEAST = 1e-3


def feature_matching(
    student: Model,
    *,
    axis_name: str | None,
    tap: str = "embedding",
    teacher_taps: tuple = (),
    cosine_weight: float = 0.9,
    hidden: int = 0,
    momentum: float = 0.99,
) -> Strategy:
    """The student's features, by a head for each teacher, match standardized ones.

    L = mean over teachers m of cosine_weight * (1 - cos(h_m(F), T_m))
        + (1 - cosine_weight) * smooth L1 of (h_m(F), T_m)

    T_m are the teacher's features with mean 0 and variance 1 in each channel, by
    running statistics of the batches; the paper takes those of all images first. No
    label is read, and the teachers need no head. The heads are ours.

    Args:
      tap: name of the student's features.
      teacher_taps: one name for each teacher, or one for all. Empty: `tap`. Of two
        maps, the larger is averaged; a map beside a vector is averaged whole.
      hidden: width of a hidden layer of each head; 0 is a linear map.
      momentum: of the running statistics, whose first steps are a plain mean.

    Raises:
      ConfigError: no teacher, or a tap that is none.
    """
    at = "strategy.options"
    require(0 <= cosine_weight <= 1, f"{at}.cosine_weight", "in [0, 1]", cosine_weight)
    require(hidden >= 0, f"{at}.hidden", "0 (a linear map) or more", hidden)
    require(0 <= momentum < 1, f"{at}.momentum", "a number in [0, 1)", momentum)

    def pairs(output, batch) -> list[tuple[Array, Array]]:
        """The features of the student and of a teacher at one size, a pair each."""
        teacher = require_teacher(batch)
        members = split_members(teacher) or [teacher]
        names, count = teacher_taps or (tap,), len(members)
        expected = f"one tap, or {count}, one for each teacher"
        require(len(names) in (1, count), f"{at}.teacher_taps", expected, names)
        names = names * count if len(names) == 1 else names
        ours = find_tap(output, tap, f"{at}.tap")
        theirs = (
            find_tap(member, name, f"{at}.teacher_taps")
            for member, name in zip(members, names, strict=True)
        )
        return [_at_one_rank(ours, x) for x in theirs]

    def make_head(width: int) -> Model:
        layers = [nn.Dense(hidden), nn.gelu] if hidden else []
        return from_linen(nn.Sequential([*layers, nn.Dense(width)]))

    def init(key, batch):
        image = batch.inputs["image"]
        variables = student.init(key, image)
        output = trace_output(student, variables, image)
        networks = {"student": variables, "statistics": {"steps": jnp.zeros(())}}
        for m, (x, y) in enumerate(jax.eval_shape(pairs, output, batch)):
            width, own_key = y.shape[-1], jax.random.fold_in(key, m + 1)
            head = make_head(width).init(own_key, jnp.zeros((1, x.shape[-1])))
            networks[f"head {m}"] = head
            zeros = {name: jnp.zeros(width) for name in ("mean", "square")}
            networks["statistics"][str(m)] = zeros
        return networks

    def loss(params, state, batch, schedules, key):
        image = batch.inputs["image"]
        output, state = apply_network("student", student, params, state, image, key)
        old = state["statistics"]
        # A plain mean of the steps, until its weight of a step is 1 - momentum.
        rate = jnp.maximum(1 - momentum, 1 / (old["steps"] + 1))
        new, values = {"steps": old["steps"] + 1}, {}
        for m, (x, y) in enumerate(pairs(output, batch)):
            rows = y.reshape(-1, y.shape[-1])
            now = {"mean": rows.mean(0), "square": jnp.square(rows).mean(0)}
            now = collectives.mean(now, axis_name)
            kept = {k: v + rate * (now[k] - v) for k, v in old[str(m)].items()}
            variables = {"params": params[f"head {m}"]}
            flat = x.reshape(-1, x.shape[-1])
            guess = make_head(y.shape[-1]).apply(variables, flat, train=True, rngs=None)
            match = _distance(guess[0].logits, standardize(rows, kept), cosine_weight)
            new[str(m)], values[f"match {m}"] = kept, match
        total = jnp.mean(jnp.stack([*values.values()]))
        return {"student": total}, ({**state, "statistics": new}, values)

    return Strategy(init, loss, labels=False)


def standardize(x: Array, statistics: dict[str, Array]) -> Array:
    """`[rows, channels]` with mean 0 and variance 1 by statistics `[channels]`."""
    mean, square = (statistics[name][None] for name in ("mean", "square"))
    variance = jnp.maximum(square - jnp.square(mean), LEAST**2)
    return (x - mean) / jnp.sqrt(variance)


def _distance(ours: Array, theirs: Array, cosine_weight: float) -> Array:
    """The mean of the cosine distance and smooth L1 over the rows."""
    cosine = losses.hint_cosine(ours, theirs).mean()
    smooth = optax.losses.huber_loss(ours, theirs).mean()
    return cosine_weight * cosine + (1 - cosine_weight) * smooth


def _at_one_rank(x: Array, y: Array) -> tuple[Array, Array]:
    """Two maps at one size, or two vectors `[batch, channels]`."""
    if x.ndim == y.ndim == 4:
        return at_one_size(x, y)
    x, y = (z.reshape(len(z), -1, z.shape[-1]).mean(1) for z in (x, y))
    return x, y
