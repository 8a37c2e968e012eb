"""Ensemble of teachers: several models as one, each at its own resolution."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from kdjax.core import checks
from kdjax.core.numerics import promote
from kdjax.core.types import Array, Model, Output, PyTree

Mean = Literal["logits", "probabilities"]


def ensemble(
    models: Sequence[Model],
    *,
    mean: Mean = "logits",
    weights: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
    at: float = 1.0,
) -> Model:
    """Ensemble: a model whose logits are the weighted mean of its members' outputs.

    `w` are the weights, scaled to sum to 1; `z` the members' logits, each divided by
    the member's temperature:

    - `"logits"`: `sum_k w_k z_k`, the paper's mean.
    - `"probabilities"`: `T log sum_k w_k softmax(z_k / T)`, with `T = at`, so that its
      softmax at the temperature T is the mean of the members' there. The divergence
      from it has the gradient of the mean of the members' divergences, whose sum is
      what the released trainer takes.

    Args:
      models: the members, with the same classes.
      mean: "logits" or "probabilities".
      weights: one above 0 for each member; equal by default.
      temperatures: one above 0 for each member, which divides its logits first, to
        bring members to one sharpness; 1 by default.
      at: the temperature of the loss that compares with the mean; "probabilities" only.

    Returns:
      A `Model` whose `variables` and `images` are tuples, one entry a member, so that
      each member can have a resolution of its own. Taps are named `"<member>/<tap>"`,
      with members counted from 0. `"<member>/logits"` are the member's logits, divided
      by its temperature.

    Raises:
      ValueError: naming the argument that cannot be used.

    Reference:
      Beyer et al., arXiv 2106.05237, section 4.4 and Table 3.
    """
    checks.one_of("mean", mean, ("logits", "probabilities"))
    checks.positive("at", at)
    shares = _each("weights", weights, len(models))
    divisors = _each("temperatures", temperatures, len(models))
    shares = [w / sum(shares) for w in shares]

    def init(key: Array, images: tuple[Array, ...]) -> PyTree:
        keys = jax.random.split(key, len(models))
        return tuple(m.init(k, x) for m, k, x in zip(models, keys, images, strict=True))

    def apply(variables: Any, images: Any, *, train=False, rngs=None):
        if train:
            raise ValueError("train: expected False, an ensemble is not trained")
        outputs = [
            m.apply(v, x, train=False, rngs=rngs)[0]
            for m, v, x in zip(models, variables, images, strict=True)
        ]
        widths = [o.logits.shape[-1] for o in outputs]
        if len(set(widths)) > 1:
            raise ValueError(f"models: expected one number of classes, got {widths}")
        wide = [promote(o.logits) / t for o, t in zip(outputs, divisors, strict=True)]
        taps = {
            f"{i}/{name}": tap
            for i, o in enumerate(outputs)
            for name, tap in o.taps.items()
        }
        taps |= {f"{i}/logits": logits for i, logits in enumerate(wide)}
        return Output(combined(jnp.stack(wide)), taps), ()

    def combined(logits: Array) -> Array:
        """`[members, batch, classes]` to `[batch, classes]`."""
        share = jnp.asarray(shares, logits.dtype)[:, None, None]
        if mean == "logits":
            return jnp.sum(share * logits, axis=0)
        logs = jnp.log(share) + jax.nn.log_softmax(logits / at)
        return at * jax.nn.logsumexp(logs, axis=0)

    return Model(init, apply)


def split_members(targets: Output) -> list[Output]:
    """The members' outputs out of those of an ensemble; empty for a single teacher.

    Each has its logits, divided by its temperature, and its taps by their own names.
    """
    members: list[Output] = []
    while f"{len(members)}/logits" in targets.taps:
        prefix = f"{len(members)}/"
        taps = {
            name.removeprefix(prefix): tap
            for name, tap in targets.taps.items()
            if name.startswith(prefix)
        }
        members.append(Output(taps.pop("logits"), taps))
    return members


def _each(name: str, values: Sequence[float] | None, count: int) -> list[float]:
    checks.positive("models", count)
    numbers = [1.0] * count if values is None else list(values)
    if len(numbers) != count:
        raise ValueError(f"{name}: expected {count}, one a model, got {len(numbers)}")
    check = checks.temperature if name == "temperatures" else checks.positive
    for number in numbers:
        check(name, number)
    return numbers
