"""The values that layers hand to each other. Nothing here computes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any


class Output(NamedTuple):
    """What a model says about a batch.

    logits: `[batch, classes]`, before any softmax.
    taps: named activations, for example `{"stage2": [batch, height, width, channels]}`.
    """

    logits: Array
    taps: Mapping[str, Array]


class TopTargets(NamedTuple):
    """What was kept of a teacher: its likeliest classes of each example.

    log_probs: `[batch, K]` at temperature 1, falling.
    indices: `[batch, K]` integer, the classes they belong to.
    log_normaliser: `[batch]`, the log of the sum over all classes of the teacher's
        probabilities to the power 1/T, for the temperature T it was made for.
    taps: as in `Output`.
    """

    log_probs: Array
    indices: Array
    log_normaliser: Array
    taps: Mapping[str, Array]


Targets = Output | TopTargets


class Model(NamedTuple):
    """A network as two pure functions; see `kdjax.models.adapters` to make one.

    init: `(key, images) -> variables`, a dict with `"params"` and, where the network
        has any, further collections such as `"batch_stats"`.
    apply: `(variables, images, *, train, rngs) -> (Output, new_state)`, `new_state`
        being the collections other than `"params"` after the call.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[Output, PyTree]]


class View(NamedTuple):
    """What each side sees of one batch, and the labels that go with it.

    student: `[batch, height, width, channels]` float32 in [-1, 1].
    teacher: the same images as the teacher sees them, at the teacher's size; the very
        same array where both see the same pixels. A tuple for several teachers.
    labels: `[batch]` int32 class ids.
    partner_labels: `[batch]` labels of the images mixed in; None without mixup.
    mix_weight: scalar in [0, 1], the share of the first image; None without mixup.
    """

    student: Array
    teacher: Any
    labels: Array
    partner_labels: Array | None = None
    mix_weight: Array | None = None


def _nothing(variables: dict[str, PyTree]) -> PyTree:
    return {}


def _unchanged(state: PyTree, variables: dict[str, PyTree]) -> PyTree:
    return state


class Teacher(NamedTuple):
    """Where the targets of a batch come from.

    targets: `(state, view, batch, given) -> Targets`, with no gradient through them.
    init: `{player: variables} -> state`, what a teacher carries that learns itself.
    update: `(state, {player: variables}) -> state`, after every update of the players.
    """

    targets: Callable[..., Targets]
    init: Callable[[dict[str, PyTree]], PyTree] = _nothing
    update: Callable[[PyTree, dict[str, PyTree]], PyTree] = _unchanged


class Strategy(NamedTuple):
    """How the players of a run are taught, as pure functions.

    init: `(key, view, targets) -> {player: variables}`.
    loss: `(params, state, view, targets, knobs, key)` -> `(losses, (state, metrics))`.
        `params` and `state` are dicts by player, `losses` holds one scalar a player
        with the gradients between players already stopped.
    knobs: `step -> {name: number}`, the scheduled weights and temperatures. They are
        handed to the step as values, so that changing one compiles nothing.
    """

    init: Callable[..., dict[str, PyTree]]
    loss: Callable[..., tuple[dict[str, Array], tuple[PyTree, dict[str, Array]]]]
    knobs: Callable[[int], dict[str, Any]]
