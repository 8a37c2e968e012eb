"""Heads of multi-head graph distillation, Lee, Song 2019, arXiv 1907.02226.

The stage before that of the strategy `multi_head_graph`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.config import Optim, require
from kdjax.core import collectives
from kdjax.core.types import Array, Model, Output, PyTree, Strategy
from kdjax.models.graph_heads import find_widths, split_vectors
from kdjax.strategies.networks import apply_network
from kdjax.strategies.supervision import apply_frozen, find_map, trace_output

TAPS = ("stage1", "stage2", "stage3")


def graph_heads(
    student: Model,
    heads: Model,
    *,
    optim: Optim,
    axis_name: str | None,
    taps: tuple = TAPS,
) -> Strategy:
    """Attention heads that estimate each tap of the teacher from the one before.

    L = sum over taps of mean (1 - cos(v, estimate of v from the earlier vectors))

    v is the strongest right singular vector of an image's map. The maps are those of
    the run's model, which does not move. So it is the teacher: its `weights` are those
    of a trained one.

    Args:
      optim: the optimizer of the run.
      taps: maps of the teacher, from early to late.

    Raises:
      ConfigError: fewer than 2 taps, one that is no map, or maps of other channels
        than the heads take.
    """
    require_several(taps)

    def init(key, batch):
        image = batch.inputs["image"]
        one, two = jax.random.split(key)
        variables, own = student.init(one, image), heads.init(two, image)
        maps = find_maps(trace_output(student, variables, image), taps, "taps")
        require_channels(own, maps)
        return {"student": variables, "heads": own}

    def loss(params, state, batch, schedules, key):
        variables = {"params": params["student"], **state["student"]}
        output = apply_frozen(student, variables, batch.inputs["image"])
        maps = jax.lax.stop_gradient(find_maps(output, taps, "taps"))
        vectors = [losses.singular_vectors(x, x)[1][..., 0] for x in maps]
        # A graph is over the images of the whole batch.
        vectors = [collectives.gather(x, axis_name) for x in vectors]
        whole = jnp.concatenate(vectors, -1)
        made, state = apply_network("heads", heads, params, state, whole, key)
        estimates = split_vectors(made.logits, [x.shape[-1] for x in vectors[1:]])
        values = map(losses.hint_cosine, estimates, vectors[1:])
        error = jnp.sum(jnp.stack([jnp.mean(x) for x in values]))
        return {"heads": error}, (state, {"estimation": error})

    still = dataclasses.replace(optim, lr=0.0, wd=0.0, parameters=())
    return Strategy(init, loss, labels=False, optim={"student": still})


def find_maps(output: Output, names: tuple, field: str) -> list[Array]:
    """Taps `[batch, height, width, channels]` by name."""
    return [find_map(output, name, f"strategy.options.{field}") for name in names]


def require_several(taps: tuple) -> None:
    """Refuse fewer than two taps: a graph is between two of them."""
    expected = "at least 2 taps, from early to late"
    require(len(taps) >= 2, "strategy.options.taps", expected, taps)


def require_channels(heads: PyTree, maps: list[Array]) -> None:
    """Refuse heads between vectors of other widths than the channels of the maps."""
    ours, theirs = find_widths(heads), tuple(x.shape[-1] for x in maps)
    expected = f"heads between taps of {theirs} channels, as the teacher's are"
    require(ours == theirs, "networks.heads.model", expected, ours)
