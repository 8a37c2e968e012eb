"""The parts of one training: networks, strategy, views, step and constants."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.augment import views
from kdjax.cache import reader, targets
from kdjax.cache.store import Store
from kdjax.config import MovingAverage, Run, require
from kdjax.core.types import (
    STUDENT,
    Array,
    BoundModel,
    Model,
    PyTree,
    Strategy,
    Teacher,
    View,
)
from kdjax.data import pipeline, resident
from kdjax.data.source import Source, check_labeled
from kdjax.data.streamed import HostCrop
from kdjax.models import zoo
from kdjax.models.precision import compute_in
from kdjax.models.rematerialize import rematerialize
from kdjax.setup.initialize import (
    Example,
    check_projectors,
    make_init,
    make_optimizer,
)
from kdjax.setup.load_models import InitialVariables, load_initial
from kdjax.strategies.choose import make_strategy
from kdjax.strategies.pairing import expand_pairs, name_projector
from kdjax.teachers.ema import moving_average
from kdjax.teachers.frozen import frozen
from kdjax.train import compiled, sharding, state, step
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

    def compile_step(self) -> compiled.Compiled:
        """The compiled step of the run, over its devices."""
        compute = self.run.compute
        return compiled.compile_step(
            self.step,
            self.mesh,
            self.constant_axes,
            self.run.seeds,
            compute.how,
            shard=compute.shard,
        )

    def create_state(self) -> TrainState:
        """The state before the first step, created on the devices."""
        return sharding.create_sharded(
            self.make_state,
            self.mesh,
            self.seeds,
            self.start,
            shard=self.run.compute.shard,
        )

    def state_shapes(self) -> TrainState:
        """The shapes of the state, with the shardings that it would be created with."""
        return sharding.abstract_sharded(
            self.make_state,
            self.mesh,
            self.seeds,
            self.start,
            shard=self.run.compute.shard,
        )

    @property
    def seeds(self) -> np.ndarray:
        """The seeds of the run, int32."""
        first = self.run.seed
        return np.arange(first, first + self.run.seeds, dtype=np.int32)

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
    learner = _in_training(model, run)
    networks = {
        name: x if run.networks[name].frozen else _in_training(x, run)
        for name, x in networks.items()
    }
    strategy = make_strategy(
        run,
        learner,
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
    teacher_fn, constants, axes = _make_teacher(run, learner, teacher, store, strategy)
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
    example = Example(
        run, train, model, teacher, teacher_fn, store, strategy.student, fixed
    )
    if carried:
        check_projectors(strategy, example, carried, start)
    update, rates, averages = make_optimizer(strategy, example)
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
            parts=run.compute.accumulate,
            averages=averages,
        ),
        constants=constants,
        constant_axes=axes,
        frozen=("teacher", *fixed),
        make_state=make_init(
            strategy, example, update, {k: x.axis for k, x in start.items()}, averages
        ),
        start={k: x.variables for k, x in start.items()},
        pipeline=feed,
        host_crop=_make_host_crop(run, teacher) if feed == "host" else None,
        store=None if store is None or targets.is_fixed(store) else store,
    )


def _in_training(model: Model, run: Run) -> Model:
    """A network as training applies it: in the precision of the config, its blocks
    computed again where the config says so.

    Its evaluation stays in float32, as that of the student that is taken out.
    """
    compute = run.compute
    if compute.remat != "none":
        keep = "products" if compute.remat == "products" else "nothing"
        model = rematerialize(model, keep, field="compute.remat")
    if compute.precision != "float32":
        model = compute_in(model, compute.precision)
    return model


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
