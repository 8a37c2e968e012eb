"""Where the parts meet: from a config to sources, models, teacher and step."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax import config as configs
from kdjax.augment import views
from kdjax.config import ConfigError, Run, require
from kdjax.core import keys, runlog
from kdjax.core.seeds import map_seeds
from kdjax.core.types import Array, Model, PyTree, Strategy, View
from kdjax.data import order, resident, sources
from kdjax.data.sources import Source, Splits
from kdjax.models import zoo
from kdjax.strategies.offline import STUDENT, offline
from kdjax.teachers.frozen import frozen
from kdjax.train import compiled, evaluate, loop, optimizer, sharding, state, step
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.state import TrainState


class Trained(NamedTuple):
    """A model with values for its variables.

    variables: as `model.init` makes them, with a first axis for seeds if `axis` is 0.
    axis: 0 where there is one set of variables a seed, None where all seeds share one.
    resolution: side of the square that the model sees, in pixels.
    """

    model: Model
    variables: PyTree
    axis: int | None
    resolution: int


class Parts(NamedTuple):
    """Everything of one training, ready to be compiled."""

    run: Run
    mesh: Mesh
    train: Source
    student: Model
    strategy: Strategy
    step: step.Step
    given: dict[str, Any]
    given_axes: dict[str, int | None]
    make_state: Callable[..., TrainState]


def load_source(run: Run, split: str, splits: Splits | None = None) -> Source:
    """The examples of the run's `train`, `validation` or `test` split."""
    everything = sources.load_splits(run.data.name) if splits is None else splits
    return sources.take_split(everything, getattr(run.data, split), f"data.{split}")


def make_parts(
    run: Run,
    *,
    train: Source,
    student: Model | None = None,
    teacher: Trained | None = None,
) -> Parts:
    """Put a run together.

    Args:
      run: what to train.
      train: its training examples.
      student: a model of the user's, in place of the one that `run.model` names.
      teacher: the teacher; its variables may be shapes only.

    Raises:
      ConfigError: a field that cannot be run, named.
    """
    run.check()
    require(run.batch <= len(train), "batch", f"<= {len(train)} examples", run.batch)
    mesh = sharding.make_mesh(run.compute, run.batch)
    axis_name = compiled.PMAP_AXIS if run.compute.how == "pmap" else None
    if student is None:
        student = zoo.make_model(run.model, train.classes, axis_name)
    strategy = offline(student, run.terms, steps=run.steps, axis_name=axis_name)
    asked = any(t.teacher != "labels" for t in run.terms.values())
    ask = frozen(teacher.model) if teacher is not None and asked else None
    players = jax.eval_shape(
        lambda: strategy.init(jax.random.key(0), *_sample(run, train, teacher, ask))
    )
    one = optimizer.make_optimizer(run.optim, run.steps)
    update = optimizer.by_player({player: one for player in players})
    update_step = step.make_train_step(
        strategy,
        update,
        view=_view(run, train, teacher, mesh, axis_name),
        teacher=ask,
        axis_name=axis_name,
    )
    given: dict[str, Any] = {"data": None}
    given_axes: dict[str, int | None] = {"data": None}
    if ask is not None and teacher is not None:
        given["teacher"] = teacher.variables
        given_axes["teacher"] = teacher.axis

    def make_one(seed: Array) -> TrainState:
        key = keys.purpose_key(seed, "init")
        sample = _sample(run, train, teacher, ask)
        return state.create_state(strategy.init(key, *sample), update)

    # Mapped on CPU too: what is left of an initialisation has no convolution.
    make_state = map_seeds(make_one, (0,), run.seeds, unroll=False)
    return Parts(
        run, mesh, train, student, strategy, update_step, given, given_axes, make_state
    )


def check_fit(
    run: Run, *, train: Source, student: Model | None, teacher: Trained | None
) -> None:
    """Trace one update of a run, computing nothing, so that what does not fit is said.

    Raises ConfigError naming the field or the term, what was expected and what came.
    """
    sharding.make_mesh(run.compute, run.batch)
    whole = dataclasses.replace(run, compute=configs.Compute(data=1), seeds=1)
    if teacher is not None and teacher.axis == 0:
        first = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), teacher.variables
        )
        teacher = teacher._replace(variables=first, axis=None)
    try:
        parts = make_parts(whole, train=train, student=student, teacher=teacher)
        _check_logits(parts, teacher)
        _trace_update(parts)
    except ConfigError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"{run.name}: expected a model, data and terms that fit together, tracing "
            f"one update raised {type(error).__name__}: {text[0]}"
        ) from error


def _check_logits(parts: Parts, teacher: Trained | None) -> None:
    """Every label must have a logit."""
    classes, run = parts.train.classes, parts.run
    view = _sample(run, parts.train, teacher, None)[0]

    def logits(model: Model, variables: PyTree | None, images: Array) -> Array:
        variables = variables or model.init(jax.random.key(0), images)
        return model.apply(variables, images, train=False, rngs=None)[0].logits

    checked = [("model", parts.student, None, view.student)]
    if teacher is not None:
        checked.append(("teacher", teacher.model, teacher.variables, view.teacher))
    for field, model, variables, images in checked:
        found = jax.eval_shape(functools.partial(logits, model), variables, images)
        want = f"at least {classes} logits (the classes of data.train)"
        require(found.shape[-1] >= classes, field, want, found.shape[-1])


def _trace_update(parts: Parts) -> None:
    train = parts.train

    def update(batch: Any, given: Any) -> Any:
        first = jax.tree.map(lambda x: x[0], parts.make_state(np.arange(1)))
        data = {"image": train.images, "label": train.labels, "id": train.ids}
        return parts.step(
            first, batch, {**given, "data": jax.tree.map(jnp.asarray, data)}
        )

    batch = make_batches(parts)(0)
    batch = {k: v if k == "knobs" else v[0] for k, v in batch.items()}
    given = {k: v for k, v in parts.given.items() if k != "data"}
    jax.eval_shape(update, batch, given)


def _sample(run: Run, train: Source, teacher: Trained | None, ask: Any):
    """A view and targets with the shapes of a batch of one, for initialisation."""
    channels = train.images.shape[-1]

    def blank(size: int) -> Array:
        return jnp.zeros((1, size, size, channels), jnp.float32)

    student_view = blank(run.model.resolution)
    if teacher is None:
        return View(student_view, student_view, jnp.zeros(1, jnp.int32)), None
    view = View(student_view, blank(teacher.resolution), jnp.zeros(1, jnp.int32))
    if ask is None:
        return view, None
    variables = teacher.variables
    shape = (lambda x: x.shape[1:]) if teacher.axis == 0 else (lambda x: x.shape)
    variables = jax.tree.map(lambda x: jnp.zeros(shape(x), x.dtype), variables)
    return view, ask({"teacher": variables}, view)


def _view(run, train: Source, teacher: Trained | None, mesh: Mesh, axis_name):
    """`(step, batch, given) -> View`: look up, draw, apply."""
    size = train.images.shape[1:3]
    student_size = run.model.resolution
    teacher_size = teacher.resolution if teacher else student_size
    rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))

    def view(step_number: Array, batch: dict[str, Any], given: Any) -> View:
        images, labels, ids = resident.take(given["data"], batch["place"])
        if axis_name is None and mesh.size > 1:
            images = jax.lax.with_sharding_constraint(images, rows)
        named = views.name_views(ids, batch["epoch"], step_number, run.views, axis_name)
        return views.apply_views(
            views.draw_views(batch["seed"], named, run.views, size),
            images,
            labels,
            student_size=student_size,
            teacher_size=teacher_size,
            axis_name=axis_name,
        )

    return view


def place_given(parts: Parts) -> dict[str, Any]:
    """What does not change during training, on the devices."""
    mesh = parts.mesh
    given = {**parts.given, "data": resident.place(parts.train, mesh)}
    if "teacher" in given:
        lead = 1 if parts.given_axes["teacher"] == 0 else 0
        where = sharding.state_sharding(mesh, given["teacher"], lead=lead)
        given["teacher"] = jax.device_put(given["teacher"], where)
    if parts.run.compute.how == "pmap":
        given = jax.device_get(given)
    return given


def make_batches(parts: Parts) -> Callable[[int], dict[str, Any]]:
    """`step -> batch`: places and epochs for each seed, and the strategy's knobs."""
    run, n = parts.run, len(parts.train)
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)

    def batch_at(step_number: int) -> dict[str, Any]:
        rows = [
            order.batch_at(step_number, n=n, batch=run.batch, seed=int(s))
            for s in seeds
        ]
        places, epochs = (np.stack(x) for x in zip(*rows, strict=True))
        knobs = parts.strategy.knobs(step_number)
        return {"seed": seeds, "place": places, "epoch": epochs, "knobs": knobs}

    return batch_at


def make_plan(run: Run) -> loop.Plan:
    """When what happens in this run."""
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


def predictor(model: Model, resolution: int) -> evaluate.Predict:
    """`(variables, uint8 images) -> logits` of the whole image, in evaluation mode."""

    def predict(variables: PyTree, images: Array) -> Array:
        seen = views.whole_view(images, resolution)
        return model.apply(variables, seen, train=False, rngs=None)[0].logits

    return predict


def make_measure(
    student: Trained, teacher: Trained | None, seeds: int, mesh: Mesh
) -> Callable[[PyTree, Source], dict[str, list[float]]]:
    """`(variables, source) -> metrics`, a number a seed."""
    measure = evaluate.make_evaluate(
        predictor(student.model, student.resolution),
        predictor(teacher.model, teacher.resolution) if teacher else None,
        teacher_axis=teacher.axis if teacher else None,
        seeds=seeds,
        mesh=mesh,
    )
    given = teacher.variables if teacher else None
    return lambda variables, source: measure(
        variables, given, source.images, source.labels
    )


def student_variables(train_state: TrainState) -> PyTree:
    """The student's variables out of a state."""
    return state.player_variables(train_state, STUDENT)


# --- runs that are there already ------------------------------------------------------


def read_run(folder: str | pathlib.Path) -> Run:
    """The config of a run folder."""
    values = runlog.read_config(folder)
    values.pop("given", None)
    return configs.from_dict(values)


def read_given(folder: str | pathlib.Path) -> dict[str, str]:
    """What a run was handed over from Python instead of by its config."""
    return runlog.read_config(folder).get("given", {})


def model_of(run: Run, classes: int, channels: int, model: Model | None) -> Trained:
    """The model that a run trains, with shapes in place of values."""
    model = model or zoo.make_model(run.model, classes)
    size = run.model.resolution
    image = jnp.zeros((1, size, size, channels), jnp.float32)

    def init(seeds: Array) -> PyTree:
        return jax.vmap(lambda seed: model.init(jax.random.key(seed), image))(seeds)

    shapes = jax.eval_shape(init, np.arange(run.seeds))
    return Trained(model, shapes, 0, size)


def load_trained(
    folder: str | pathlib.Path,
    mesh: Mesh,
    *,
    model: Model | None = None,
    step_number: int | None = None,
) -> Trained:
    """The trained model of a finished run's folder, on the devices of a mesh.

    model: in place of the one that the folder's config names.
    step_number: a checkpoint's step; None takes the last.
    """
    summary = runlog.read_summary(folder)
    if summary is None:
        raise ConfigError(f"{folder}: expected a finished run, it has no summary.json")
    blank = model_of(read_run(folder), summary["classes"], summary["channels"], model)
    where = sharding.state_sharding(mesh, blank.variables)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        blank.variables,
        where,
    )
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        values = checkpoints.restore_player(like, STUDENT, step_number)
    finally:
        checkpoints.close()
    return blank._replace(variables=values)


def fit_seeds(teacher: Trained, teacher_seeds: int, run: Run) -> Trained:
    """A teacher for each seed of a run: its own one, or one that all share."""
    if teacher_seeds == 1 and run.seeds > 1:
        first = jax.tree.map(lambda x: x[0], teacher.variables)
        return teacher._replace(variables=first, axis=None)
    ok = teacher_seeds == run.seeds
    want = f"a run of {run.seeds} seeds, or of 1 that all share"
    require(ok, "teacher.run", want, teacher_seeds)
    return teacher


def teacher_run(run: Run, folder: pathlib.Path) -> Run:
    """The labelled run that trains the teacher of `run`."""
    if run.teacher is None:
        raise ConfigError("teacher: expected a teacher to distil from, got none")
    asked = run.teacher
    return configs.labelled(
        run,
        name="teacher",
        workdir=str(folder),
        data=dataclasses.replace(run.data, train=asked.train),
        model=asked.model,
        teacher=None,
        views=asked.views,
        optim=asked.optim,
        steps=asked.steps,
    )


def baseline_run(run: Run, name: str, folder: pathlib.Path) -> Run:
    """A label-only run with the same model, schedule and number of views as `run`."""
    mode = "function_matching" if name == "labels_mixup" else "consistent"
    teacher = run.teacher
    if teacher is not None and not teacher.run:
        teacher = dataclasses.replace(teacher, run="../teacher")
    return configs.labelled(
        run,
        name=name,
        workdir=str(folder),
        teacher=teacher,
        views=dataclasses.replace(run.views, mode=mode),
    )
