"""One training put together from its config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.augment import views
from kdjax.cache import reader, targets
from kdjax.cache.store import Store
from kdjax.config import MovingAverage, Run, require
from kdjax.core import keys
from kdjax.core.seeds import map_seeds
from kdjax.core.types import (
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
from kdjax.models import zoo
from kdjax.setup.trained import starting_variables
from kdjax.strategies.choose import make_strategy
from kdjax.teachers.ema import moving_average
from kdjax.teachers.frozen import frozen
from kdjax.train import compiled, loop, optimizer, sharding, state, step, turns
from kdjax.train.state import TrainState


class Parts(NamedTuple):
    """Everything of one training, ready to be compiled.

    rates: `step -> rates` of the optimiser.
    view: `(step, batch, given) -> View` of one seed.
    given: what the step does not change, and the axis of its seeds in `given_axes`.
    start: the variables that the student starts from, for all seeds or one set a seed;
        None draws them.
    feed: "device" or "host". host_crop: how the host cuts views out, if it does.
    store: targets that come with each batch; None where they come otherwise.
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
    given: dict[str, Any]
    given_axes: dict[str, int | None]
    make_state: Callable[..., TrainState]
    start: PyTree
    feed: pipeline.Pipeline
    host_crop: HostCrop | None
    store: Store | None

    def plan_step(self, step_number: int) -> int:
        """The update whose examples and views update `step_number` has.

        With stored targets the first updates come again once all are used up.
        """
        return step_number if self.store is None else step_number % self.store.records


def make_parts(
    run: Run,
    *,
    train: Source,
    student: Model | None = None,
    teacher: BoundModel | None = None,
    store: Store | None = None,
    mesh: Mesh | None = None,
) -> Parts:
    """Put a run together.

    Args:
      run: what to train.
      train: its training examples.
      student: a model of the user's, in place of the one that `run.model` names.
      teacher: the teacher; its variables may be shapes only.
      store: of its targets, open already; by default the one that the run names.
      mesh: the devices it runs on; by default those that the run names.

    Raises:
      ConfigError: a field that cannot be run, named.
      StoreError: the cache that the run names is of something else, or damaged.
    """
    run.check()
    require(run.batch <= len(train), "batch", f"<= {len(train)} examples", run.batch)
    axis_name = compiled.PMAP_AXIS if run.compute.how == "pmap" else None
    model = student or zoo.make_model(run.model, train.classes, axis_name)
    its = teacher.model if teacher else None
    strategy = make_strategy(run, model, its, train.classes, axis_name)
    if strategy.labels:
        check_labeled(train, "data.train")
    mesh = mesh or sharding.make_mesh(run.compute, run.batch)
    start, start_axis = None, None
    if student is None:
        classes, channels = train.classes, train.shape[-1]
        start, start_axis = starting_variables(run, classes, channels, mesh)
    if store is None:
        store = reader.open_if_named(run, train, teacher)
    ask, given, given_axes = _teacher(run, model, teacher, store, strategy.student)
    sample = _Sample(run, train, model, teacher, ask, store, strategy.student)
    networks = jax.eval_shape(lambda: strategy.init(jax.random.key(0), sample()))
    turns.check_networks(strategy, networks)
    trained = [name for name, x in networks.items() if "params" in x]
    optims = {name: strategy.optim.get(name, run.optim) for name in trained}
    made = {name: optimizer.make_optimizer(optim) for name, optim in optims.items()}
    update = optimizer.by_network(made)
    feed = pipeline.choose_pipeline(
        train, pipeline.device_budget(mesh), run.data.pipeline
    )
    crop = _host_crop(run, teacher) if feed == "host" else None
    view = _view(run, train, teacher, mesh, axis_name)
    update_step = step.make_train_step(
        strategy, update, view=view, teacher=ask, axis_name=axis_name
    )

    def make_one(seed: Array, start: PyTree) -> TrainState:
        made = strategy.init(keys.purpose_key(seed, "init"), sample())
        if start is not None:
            made[strategy.student] = jax.tree.map(jnp.asarray, start)
        return state.create_state(made, update, ask)

    # Mapped on CPU too: what is left of an initialisation has no convolution.
    make_state = map_seeds(make_one, (0, start_axis), run.seeds, unroll=False)
    return Parts(
        run=run,
        mesh=mesh,
        train=train,
        student=model,
        strategy=strategy,
        rates=optimizer.network_rates(optims, run.steps),
        view=view,
        teacher=ask,
        step=update_step,
        given=given,
        given_axes=given_axes,
        make_state=make_state,
        start=start,
        feed=feed,
        host_crop=crop,
        store=None if store is None or targets.is_fixed(store) else store,
    )


def _teacher(
    run: Run,
    student: Model,
    teacher: BoundModel | None,
    store: Store | None,
    network: str,
):
    """Whom to ask, what that needs beside the batch, and its axes."""
    given: dict[str, Any] = {"data": {}}
    axes: dict[str, int | None] = {"data": None}
    if not run.uses_teacher:
        return None, given, axes
    if isinstance(run.teacher, MovingAverage):
        ask = moving_average(student, decay=run.teacher.decay, network=network)
        return ask, given, axes
    if teacher is None:
        return None, given, axes
    if store is None:
        given["teacher"], axes["teacher"] = teacher.variables, teacher.axis
        return frozen(teacher.model), given, axes
    options = targets.top_k_options(run)
    if not targets.is_fixed(store):
        return targets.replayed_teacher(**options), given, axes
    given["targets"], axes["targets"] = targets.read_fixed(store)
    return targets.fixed_teacher(**options), given, axes


class _Sample(NamedTuple):
    """A batch of one example with the shapes of a real one, for initialization."""

    run: Run
    train: Source
    student: Model
    teacher: BoundModel | None
    ask: Teacher | None
    store: Store | None
    network: str

    def __call__(self) -> Batch:
        own = self.run.model.resolution
        at = own if self.teacher is None else self.teacher.resolution
        seen = jax.tree.map(self._blank, at)
        zero = jnp.zeros(1, jnp.int32)
        view = View(self._blank(own), seen, zero, index=zero)
        if self.ask is None:
            return make_batch(view, None, {})
        constants = self._constants()
        frozen = {k: x for k, x in constants.items() if k == "teacher"}
        return make_batch(view, self._targets(view, constants), frozen)

    def _blank(self, size: int) -> Array:
        return jnp.zeros((1, size, size, self.train.shape[-1]), jnp.float32)

    def _constants(self) -> dict[str, Any]:
        if self.store is not None:
            return {"targets": targets.blank_example(self.store)}
        if self.teacher is None:
            return {}
        lead = 1 if self.teacher.axis == 0 else 0
        blank = jax.tree.map(
            lambda x: jnp.zeros(x.shape[lead:], x.dtype), self.teacher.variables
        )
        return {"teacher": blank}

    def _targets(self, view: View, constants: dict[str, Any]) -> Any:
        assert self.ask is not None
        rows = {"index": jnp.zeros(1, jnp.int32)}
        rows |= {k: x for k, x in constants.items() if k == "targets"}
        carried: PyTree = {}
        if self.store is None and self.teacher is None:
            variables = self.student.init(jax.random.key(0), view.student)
            carried = self.ask.init({self.network: variables})
        return self.ask.targets(carried, view, {"rows": rows}, constants)


def _host_crop(run: Run, teacher: BoundModel | None) -> HostCrop | None:
    """How the host cuts the views out, if the run wants it to."""
    if run.data.crop == "device":
        return None
    own = run.model.resolution
    at = own if teacher is None else teacher.resolution
    require(isinstance(at, int), "data.crop", "device with several teachers", "host")
    asked = run.views
    return HostCrop(views.host_draw(asked), own, at, asked.method, asked.antialias)


def _view(run: Run, train: Source, teacher: BoundModel | None, mesh: Mesh, axis_name):
    """`(step, batch, given) -> View`: look up, draw, apply."""
    shape = train.shape[:2]
    student_size = run.model.resolution
    teacher_size = teacher.resolution if teacher else student_size
    rows_of_all = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))

    def divided(x: Array) -> Array:
        if axis_name is not None or mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, rows_of_all)

    def view(step_number: Array, batch: dict[str, Any], given: Any) -> View:
        rows = batch["rows"]
        found = rows
        if "id" not in rows:
            found = resident.take(given["data"], rows["index"])
        labels, ids = found["label"], found["id"]
        named = views.name_views(
            ids, rows["epoch"], batch["step"], run.views, axis_name
        )
        sizes = found.get("size", shape)
        draw = views.draw_views(batch["seed"], named, run.views, sizes)
        if "student" in found:
            seen = views.finish_views(
                draw,
                found["student"],
                found.get("teacher"),
                labels,
                axis_name=axis_name,
            )
        else:
            seen = views.apply_views(
                draw,
                divided(found["image"]),
                labels,
                student_size=student_size,
                teacher_size=teacher_size,
                axis_name=axis_name,
                method=run.views.method,
                antialias=run.views.antialias,
            )
        return seen._replace(index=rows["index"])

    return view


def make_plan(parts: Parts) -> loop.Plan:
    """When what happens in this run."""
    run = parts.run
    on_cpu = jax.default_backend() == "cpu"
    return loop.Plan(
        name=run.name,
        steps=run.steps,
        images_per_step=run.batch * run.seeds,
        log_every=run.log_every,
        evaluate_every=run.evaluate_every,
        checkpoint_every=run.checkpoint_every,
        # A convolution inside a loop is more than ten times slower on CPU.
        steps_per_call=run.compute.steps_per_call or (1 if on_cpu else 16),
    )


def student_variables(parts: Parts, train_state: TrainState) -> PyTree:
    """The variables of the network that is evaluated, out of a state."""
    return state.network_variables(train_state, parts.strategy.student)
