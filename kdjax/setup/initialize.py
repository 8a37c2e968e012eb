"""The networks and optimizers of a run before its first step."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.cache import targets
from kdjax.cache.store import Store
from kdjax.config import ConfigError, Custom, Run, require
from kdjax.core import keys
from kdjax.core.seeds import map_seeds
from kdjax.core.types import (
    STUDENT,
    Array,
    Batch,
    BoundModel,
    Model,
    PyTree,
    Strategy,
    Teacher,
    View,
    make_batch,
)
from kdjax.data.source import Source
from kdjax.models import weights
from kdjax.setup.load_models import InitialVariables
from kdjax.strategies.kernels import find_kernel
from kdjax.strategies.pairing import expand_pairs
from kdjax.train import optimizer, sharding, state, turns
from kdjax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Example:
    """A batch of one example, all zeros, with the shapes of a real one.

    For initialization: networks need shapes, and the teacher is traced for them once.
    """

    run: Run
    train: Source
    student: Model
    teacher: BoundModel | None
    teacher_fn: Teacher | None
    store: Store | None
    network: str
    fixed: Mapping[str, InitialVariables]

    def __call__(self) -> Batch:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._shapes)

    @functools.cached_property
    def _shapes(self) -> Batch:
        return jax.eval_shape(self._make)

    def _make(self) -> Batch:
        size, channels = self.run.model.resolution, self.train.shape[-1]
        teacher_size = size if self.teacher is None else self.teacher.resolution
        student_images, teacher_images = jax.tree.map(
            lambda size: jnp.zeros((1, size, size, channels), jnp.float32),
            (size, teacher_size),
        )
        zero = jnp.zeros(1, jnp.int32)
        view = View(student_images, teacher_images, zero, index=zero)
        frozen = self.frozen()
        if self.teacher_fn is None:
            return make_batch(view, None, frozen)
        targets = self._targets(view, self._constants())
        return make_batch(view, targets, frozen)

    def frozen(self) -> dict[str, PyTree]:
        """Variables of the networks that do not learn, by name."""
        frozen = {name: _blank(x.variables, x.axis) for name, x in self.fixed.items()}
        constants = {} if self.teacher_fn is None else self._constants()
        return frozen | {k: x for k, x in constants.items() if k == "teacher"}

    def _constants(self) -> dict[str, Any]:
        if self.store is not None:
            return {"targets": targets.blank_example(self.store)}
        if self.teacher is None:
            return {}
        return {"teacher": _blank(self.teacher.variables, self.teacher.axis)}

    def _targets(self, view: View, constants: dict[str, Any]) -> Any:
        assert self.teacher_fn is not None
        rows = {"index": jnp.zeros(1, jnp.int32)}
        rows |= {k: x for k, x in constants.items() if k == "targets"}
        carried: PyTree = {}
        if self.store is None and self.teacher is None:
            variables = self.student.init(jax.random.key(0), view.student)
            carried = self.teacher_fn.init({self.network: variables})
        return self.teacher_fn.targets(carried, view, {"rows": rows}, constants)


def _blank(variables: PyTree, axis: int | None) -> PyTree:
    """Zeros with the shapes of the variables of one seed."""
    lead = 1 if axis == 0 else 0
    return jax.tree.map(lambda x: jnp.zeros(x.shape[lead:], x.dtype), variables)


def check_projectors(
    strategy: Strategy,
    example: Example,
    fields: Mapping[str, str],
    start: Mapping[str, InitialVariables],
) -> None:
    """Refuse projectors of an earlier run that have other shapes.

    fields: of the config, by network.
    """
    networks = jax.eval_shape(lambda: strategy.init(jax.random.key(0), example()))
    for name, field in fields.items():
        variables = jax.eval_shape(lambda x=start[name]: _blank(*x))
        mismatches = weights.find_mismatches(networks.get(name, {}), variables)
        expected = "a projector of these taps and this name"
        if mismatches:
            got = weights.summarize_mismatches(mismatches)
            raise ConfigError(field, expected, shown=got)


def make_optimizer(strategy: Strategy, example: Example):
    """The update of all trained networks, `step -> rates`, and decays of averages.

    Refuses `compute.shard` of other parameters; warns of what sees parts of a batch.
    """
    networks = jax.eval_shape(lambda: strategy.init(jax.random.key(0), example()))
    turns.check_networks(strategy, networks)
    trained = [name for name, x in networks.items() if "params" in x]
    run = example.run
    for name, network in run.networks.items():
        known = (*run.networks, *networks)
        ok = network.frozen or name in trained
        expected = f"a network that the strategy trains, of {sorted(trained)}"
        require(ok, f"networks.{name}", expected, sorted(known))
    own = {name: network.optim for name, network in run.networks.items()}
    # The run's patterns are of the student's parameters; a projector has none such.
    others = dataclasses.replace(run.optim, parameters=(), ema=0.0)
    optims = {
        name: strategy.optim.get(name)
        or own.get(name)
        or (run.optim if name == strategy.student else others)
        for name in trained
    }
    each = {name: optimizer.make_optimizer(x, name) for name, x in optims.items()}
    params = {name: networks[name]["params"] for name in trained}
    fixed = jax.eval_shape(example.frozen)
    # A job that trains its teacher first has no teacher there.
    shard = {
        pattern: axis
        for pattern, axis in run.compute.shard.items()
        if "teacher" in fixed or not pattern.startswith("teacher/")
    }
    sharding.check_shard({**params, **fixed}, shard, run.compute.fsdp, lead=0)
    _warn_of_parts(run, networks)
    averages = {name: x.ema for name, x in optims.items() if x.ema}
    rates = optimizer.network_rates(optims, run.steps)
    return optimizer.by_network(each), rates, averages


def _warn_of_parts(run: Run, networks: Mapping[str, PyTree]) -> None:
    """Warn of losses and norms that compare the examples of a part of a batch."""
    if run.compute.accumulate == 1:
        return
    found = [
        f"BatchNorm of {name}" for name, x in networks.items() if "batch_stats" in x
    ]
    if not isinstance(run.strategy, Custom):
        for name, field, term in expand_pairs(run.terms):
            if find_kernel(term, field).relation:
                found.append(f"the loss of term {name}")
    if found:
        size = run.batch // run.compute.accumulate
        text = f"compute.accumulate: {', '.join(found)} sees {size} examples at a time"
        warnings.warn(text, stacklevel=2)


def make_init(
    strategy: Strategy,
    example: Example,
    update: Any,
    start_axes: dict[str, int | None],
    averaged: Collection[str],
) -> Callable[..., TrainState]:
    """`(seeds, start) -> state` of all seeds, before the first step."""

    def init_one(seed: Array, start: dict[str, PyTree]) -> TrainState:
        networks = strategy.init(keys.purpose_key(seed, "init"), example())
        for name, variables in start.items():
            network = strategy.student if name == STUDENT else name
            networks[network] = jax.tree.map(jnp.asarray, variables)
        return state.create_state(networks, update, example.teacher_fn, averaged)

    # Mapped on CPU too: what is left of an initialization has no convolution.
    return map_seeds(init_one, (0, start_axes), example.run.seeds, unroll=False)
