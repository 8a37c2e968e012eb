"""The values that layers hand to each other. Nothing here computes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any


class Output(NamedTuple):
    """The outputs of a model for a batch.

    logits: `[batch, classes]`, before any softmax.
    taps: named activations, for example `{"stage2": [batch, height, width, channels]}`.
    """

    logits: Array
    taps: Mapping[str, Array]


class TopTargets(NamedTuple):
    """Top-k teacher targets: the K most probable classes of each example.

    log_probs: `[batch, K]` at temperature 1, falling.
    indices: `[batch, K]` integer, the classes they belong to.
    log_normalizer: `[batch]`, the log of the sum over all classes of the teacher's
        probabilities to the power 1/T, for the temperature T it was made for.
    taps: as in `Output`.
    """

    log_probs: Array
    indices: Array
    log_normalizer: Array
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


class BoundModel(NamedTuple):
    """A model with values for its variables, or with their shapes.

    variables: as `model.init` makes them, with a first axis for seeds if `axis` is 0.
    axis: 0 where there is one set of variables a seed, None where all seeds share one.
    resolution: side of the model's square input in pixels; a tuple for several models
        as one.
    normalization: `kdjax.config.ModelConfig.input_scale`, one for each model.
    code: fingerprints of models of the user's own functions, one for each model.
    has_logits: False for a network without a head, whose logits are `[batch, 0]`.
    """

    model: Model
    variables: PyTree
    axis: int | None
    resolution: Any
    normalization: tuple[str, ...] = ("symmetric",)
    code: tuple[str, ...] = ("",)
    has_logits: bool = True


class View(NamedTuple):
    """Student and teacher images of one batch, and the labels that go with them.

    student: `[batch, height, width, channels]` float32 in [-1, 1].
    teacher: the teacher's images, at the teacher's size; the very same array where
        both get the same pixels. A tuple for several teachers.
    labels: `[batch]` int32 class ids.
    partner_labels: `[batch]` labels of the images mixed in; None without mixup.
    mix_weight: scalar in [0, 1], the share of the first image; None without mixup.
    index: `[batch]` int32, the row of each example in the training set; None where
        the caller has none.
    notes: further arrays of the examples by name: masks, boxes, words.
    """

    student: Array
    teacher: Any
    labels: Array
    partner_labels: Array | None = None
    mix_weight: Array | None = None
    index: Array | None = None
    notes: Mapping[str, Any] = {}


class Batch(NamedTuple):
    """The inputs, labels and targets of one step of a strategy.

    inputs: by name: `image` is the student's view, `teacher_image` the teacher's (a
        tuple for several teachers), both `[batch, height, width, channels]`.
    labels: `[batch]` int32 class ids.
    targets: the teacher's outputs for this view, without a gradient; None without one.
    frozen: variables of the networks that do not learn, by name, for a gradient in
        their input: `teacher` unless its targets come from a cache.
    partner_labels, mix_weight, index, notes: as in `View`.
    """

    inputs: Mapping[str, Any]
    labels: Array
    targets: Targets | None = None
    frozen: Mapping[str, PyTree] = {}
    partner_labels: Array | None = None
    mix_weight: Array | None = None
    index: Array | None = None
    notes: Mapping[str, Any] = {}


def make_batch(
    view: View, targets: Targets | None, frozen: Mapping[str, PyTree]
) -> Batch:
    """The batch of a strategy from a view and the teacher's targets for it."""
    return Batch(
        inputs={"image": view.student, "teacher_image": view.teacher},
        labels=view.labels,
        targets=targets,
        frozen=frozen,
        partner_labels=view.partner_labels,
        mix_weight=view.mix_weight,
        index=view.index,
        notes=view.notes,
    )


# The network of `Run.model` among those of a run.
STUDENT = "student"


def _no_schedules(step: int) -> dict[str, Any]:
    return {}


# (network or networks, steps), in order and over again.
Turns = tuple[tuple[str | tuple[str, ...], int], ...]


def _nothing(variables: dict[str, PyTree]) -> PyTree:
    return {}


def _unchanged(state: PyTree, variables: dict[str, PyTree]) -> PyTree:
    return state


class Teacher(NamedTuple):
    """The source of the targets of a batch, as pure functions.

    targets: `(state, view, batch, constants) -> Targets`, without a gradient.
    init: `{network: variables} -> state`, what a teacher carries that learns itself.
    update: `(state, {network: variables}) -> state`, after every step.
    """

    targets: Callable[..., Targets]
    init: Callable[[dict[str, PyTree]], PyTree] = _nothing
    update: Callable[[PyTree, dict[str, PyTree]], PyTree] = _unchanged


class Strategy(NamedTuple):
    """A training strategy for the networks of a run, as pure functions.

    init: `(key, batch) -> {network: variables}`, from a batch of one example. An entry
        without `"params"` is state of the strategy: a memory bank, running statistics.
    loss: `(params, state, batch, schedules, key)` -> `(losses, (state, metrics))`.
        `params` and `state` are dicts by network, as `init` made them: `params` and
        the other collections. `losses` holds one scalar for each trained network; a
        network without one is trained by the sum of the others'.
    schedules: `step -> {name: number}`, scheduled weights and the like. They enter the
        compiled step as values, so that changing one compiles nothing.
    turns: who moves and for how many steps, in order and over again, for example
        `(("critic", 1), (("student", "projector"), 4))`. In a turn the other networks
        are constants. Empty: all move at every step.
    student: the network that is evaluated and exported.
    labels: `loss` reads labels, so that every training example needs one.
    optim: a `kdjax.config.Optim` by network, where it is not the run's.
    """

    init: Callable[..., dict[str, PyTree]]
    loss: Callable[..., tuple[dict[str, Array], tuple[PyTree, dict[str, Array]]]]
    schedules: Callable[[int], dict[str, Any]] = _no_schedules
    turns: Turns = ()
    student: str = STUDENT
    labels: bool = True
    optim: Mapping[str, Any] = {}
