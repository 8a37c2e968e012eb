"""The parts of one training: networks, strategy, views, step and constants."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.augment import views
from kdjax.cache import reader, targets
from kdjax.cache.store import Store
from kdjax.config import ConfigError, MovingAverage, Run, require
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
from kdjax.data import pipeline, resident
from kdjax.data.source import Source, check_labeled
from kdjax.data.streamed import HostCrop
from kdjax.models import weights, zoo
from kdjax.setup.load_models import (
    InitialVariables,
    load_initial,
)
from kdjax.strategies.choose import make_strategy
from kdjax.strategies.pairing import expand_pairs, name_projector
from kdjax.teachers.ema import moving_average
from kdjax.teachers.frozen import frozen
from kdjax.train import compiled, optimizer, sharding, state, step, turns
from kdjax.train.state import TrainState


class Parts(NamedTuple):
    """The parts of one training, ready to be compiled.

    rates: `step -> rates` of the optimizers.
    view: `(step, batch, constants) -> View` of one seed.
    teacher: the source of targets; None where no term reads them.
    constants: arrays that no step changes, by name; those of the data come later.
    constant_axes: by name 0, where there is an array for each seed, or None.
    frozen: names of the constants that are variables of frozen networks.
    start: initial variables by network, where the seeds do not draw them.
    pipeline: the input pipeline, "device" (resident images) or "host" (streamed).
    host_crop: the crops that the host makes; None where the devices do.
    store: targets that come with each batch; None without.
    """

    run: Run
    mesh: Mesh
    train: Source
    student: Model
    strategy: Strategy
    rates: Callable[[int], dict[str, Any]]
    view: Callable[..., View]
    teacher: Teacher | None
    step: step.Step
    constants: dict[str, Any]
    constant_axes: dict[str, int | None]
    frozen: tuple[str, ...]
    make_state: Callable[..., TrainState]
    start: dict[str, PyTree]
    pipeline: pipeline.Pipeline
    host_crop: HostCrop | None
    store: Store | None

    def cycle_step(self, step_number: int) -> int:
        """The step whose batch step `step_number` repeats, in cycles of a cache."""
        return step_number if self.store is None else step_number % self.store.records

    def student_variables(self, train_state: TrainState) -> PyTree:
        """The variables of the network that is evaluated, from a training state."""
        return state.network_variables(train_state, self.strategy.student)


def make_parts(
    run: Run,
    *,
    train: Source,
    student: Model | None = None,
    teacher: BoundModel | None = None,
    store: Store | None = None,
    mesh: Mesh | None = None,
    initial: Mapping[str, InitialVariables] | None = None,
) -> Parts:
    """The parts of a run, from its config.

    Args:
      train: the training examples.
      student: a model from Python, in place of the one that `run.model` names.
      teacher: the teacher; shapes of its variables are enough.
      store: its target cache, open; by default the one that the run names.
      mesh: the devices; by default those that the run names.
      initial: initial variables by network, or shapes; by default the run's.

    Raises ConfigError naming a field, and StoreError for the cache of another run.
    """
    run.check()
    require(run.batch <= len(train), "batch", f"<= {len(train)} examples", run.batch)
    axis_name = compiled.PMAP_AXIS if run.compute.how == "pmap" else None
    model = student or zoo.make_model(run.model, train.classes, axis_name)
    teacher_model = teacher.model if teacher else None
    networks = {
        name: zoo.make_model(
            network.model, train.classes, axis_name, field=f"networks.{name}.model"
        )
        for name, network in run.networks.items()
    }
    strategy = make_strategy(
        run,
        model,
        teacher_model,
        train.classes,
        axis_name,
        networks=networks,
        examples=len(train),
    )
    if strategy.labels:
        check_labeled(train, "data.train")
    mesh = mesh or sharding.make_mesh(run.compute, run.batch)
    if initial is None:
        initial = load_initial(run, train, mesh, student)
    if store is None:
        store = reader.open_if_named(run, train, teacher)
    teacher_fn, constants, axes = _make_teacher(run, model, teacher, store, strategy)
    fixed = {k: initial[k] for k, network in run.networks.items() if network.frozen}
    constants |= {name: x.variables for name, x in fixed.items()}
    axes |= {name: x.axis for name, x in fixed.items()}
    # A baseline has the student alone of the networks that were loaded.
    carried = {
        name_projector(x.name): f"{x.field}.projector_weights"
        for x in expand_pairs(run.terms)
        if x.term.projector_weights and x.term.counts
    }
    learning = {STUDENT, *run.networks, *carried} - {*fixed}
    start = {name: x for name, x in initial.items() if name in learning}
    example = _Example(
        run, train, model, teacher, teacher_fn, store, strategy.student, fixed
    )
    if carried:
        _check_projectors(strategy, example, carried, start)
    update, rates = _make_optimizer(strategy, example)
    # Devices to plan for have no memory to look at.
    budget = pipeline.device_budget(mesh) if run.data.pipeline == "auto" else 0
    feed = pipeline.choose_pipeline(train, budget, run.data.pipeline)
    view = _make_view(run, train, teacher, mesh, axis_name)
    return Parts(
        run=run,
        mesh=mesh,
        train=train,
        student=model,
        strategy=strategy,
        rates=rates,
        view=view,
        teacher=teacher_fn,
        step=step.make_train_step(
            strategy,
            update,
            view=view,
            teacher=teacher_fn,
            axis_name=axis_name,
            frozen=("teacher", *fixed),
            largest=(run.skip.above or math.inf) if run.skip.most else None,
        ),
        constants=constants,
        constant_axes=axes,
        frozen=("teacher", *fixed),
        make_state=_make_init(
            strategy, example, update, {k: x.axis for k, x in start.items()}
        ),
        start={k: x.variables for k, x in start.items()},
        pipeline=feed,
        host_crop=_make_host_crop(run, teacher) if feed == "host" else None,
        store=None if store is None or targets.is_fixed(store) else store,
    )


@dataclasses.dataclass(frozen=True)
class _Example:
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
        frozen = {name: _blank(x.variables, x.axis) for name, x in self.fixed.items()}
        if self.teacher_fn is None:
            return make_batch(view, None, frozen)
        constants = self._constants()
        frozen |= {k: x for k, x in constants.items() if k == "teacher"}
        return make_batch(view, self._targets(view, constants), frozen)

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


def _make_teacher(
    run: Run,
    student: Model,
    teacher: BoundModel | None,
    store: Store | None,
    strategy: Strategy,
) -> tuple[Teacher | None, dict[str, Any], dict[str, int | None]]:
    """The source of a run's targets, its constants, and their axes of seeds."""
    constants: dict[str, Any] = {"data": {}}
    axes: dict[str, int | None] = {"data": None}
    config = run.teacher if run.uses_teacher else None
    if isinstance(config, MovingAverage):
        options = {"decay": config.decay, "network": strategy.student}
        return moving_average(student, **options), constants, axes
    if config is None or teacher is None:
        return None, constants, axes
    if store is None:
        constants["teacher"], axes["teacher"] = teacher.variables, teacher.axis
        return frozen(teacher.model), constants, axes
    options = targets.top_k_options(run)
    if not targets.is_fixed(store):
        return targets.replayed_teacher(**options), constants, axes
    constants["targets"], axes["targets"] = targets.read_fixed(store)
    return targets.fixed_teacher(**options), constants, axes


def _check_projectors(
    strategy: Strategy,
    example: _Example,
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


def _make_optimizer(strategy: Strategy, example: _Example):
    """The update of all trained networks, and `step -> rates`."""
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
    others = dataclasses.replace(run.optim, parameters=())
    optims = {
        name: strategy.optim.get(name)
        or own.get(name)
        or (run.optim if name == strategy.student else others)
        for name in trained
    }
    each = {name: optimizer.make_optimizer(x, name) for name, x in optims.items()}
    return optimizer.by_network(each), optimizer.network_rates(optims, run.steps)


def _make_init(
    strategy: Strategy,
    example: _Example,
    update: Any,
    start_axes: dict[str, int | None],
) -> Callable[..., TrainState]:
    """`(seeds, start) -> state` of all seeds, before the first step."""

    def init_one(seed: Array, start: dict[str, PyTree]) -> TrainState:
        networks = strategy.init(keys.purpose_key(seed, "init"), example())
        for name, variables in start.items():
            network = strategy.student if name == STUDENT else name
            networks[network] = jax.tree.map(jnp.asarray, variables)
        return state.create_state(networks, update, example.teacher_fn)

    # Mapped on CPU too: what is left of an initialization has no convolution.
    return map_seeds(init_one, (0, start_axes), example.run.seeds, unroll=False)


def _make_host_crop(run: Run, teacher: BoundModel | None) -> HostCrop | None:
    """The crops that the host makes; None where the config leaves them to devices."""
    if run.data.crop == "device":
        return None
    size = run.model.resolution
    teacher_size = size if teacher is None else teacher.resolution
    single = isinstance(teacher_size, int)
    require(single, "data.crop", "device with several teachers", "host")
    options = run.views.method, run.views.antialias
    return HostCrop(views.host_draw(run.views), size, teacher_size, *options)


def _make_view(
    run: Run,
    train: Source,
    teacher: BoundModel | None,
    mesh: Mesh,
    axis_name: str | None,
) -> Callable[..., View]:
    """`(step, batch, constants) -> View`: look up, draw, apply."""
    shape = train.shape[:2]
    student_size = run.model.resolution
    teacher_size = teacher.resolution if teacher else student_size
    over_devices = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
    divides = axis_name is None and mesh.size > 1

    def view(step_number: Array, batch: dict[str, Any], constants: Any) -> View:
        examples = rows = batch["rows"]
        if "id" not in rows:
            examples = resident.take(constants["data"], rows["index"])
        labels, ids = examples["label"], examples["id"]
        named = views.name_views(
            ids, rows["epoch"], batch["step"], run.views, axis_name
        )
        sizes = examples.get("size", shape)
        draw = views.draw_views(batch["seed"], named, run.views, sizes)
        if "student" in examples:
            crops = examples["student"], examples.get("teacher")
            both = views.finish_views(draw, *crops, labels, axis_name=axis_name)
        else:
            images = examples["image"]
            if divides:
                images = jax.lax.with_sharding_constraint(images, over_devices)
            both = views.apply_views(
                draw,
                images,
                labels,
                student_size=student_size,
                teacher_size=teacher_size,
                axis_name=axis_name,
                method=run.views.method,
                antialias=run.views.antialias,
            )
        return both._replace(index=rows["index"])

    return view
