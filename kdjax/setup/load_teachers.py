"""Loading the teacher of a run: from Python, a run folder or published weights."""

import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax.config import (
    ConfigError,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    Run,
    TrainFirst,
    beneath,
    members_of,
    require,
    require_seed,
)
from kdjax.core import bucket, runlog
from kdjax.core.types import BoundModel, Model, Output, PyTree
from kdjax.data.source import Source, check_same_names
from kdjax.models import weights, zoo
from kdjax.models.precision import cast_floats, compute_in
from kdjax.setup.load_models import (
    load_pretrained,
    load_trained,
    read_run,
    trace_model,
)
from kdjax.teachers.ensemble import ensemble


def load_teacher(
    run: Run,
    source: Source,
    mesh: Mesh,
    passed: tuple[Model, Any] | None = None,
    *,
    trained: bool = True,
) -> BoundModel | None:
    """The teacher of a run, or the members of its ensemble as one model.

    Args:
      source: the training examples, whose classes a teacher has.
      passed: a model and its variables from Python, in place of a teacher of kind
        train.
      trained: False gives shapes in place of the variables of kind train.

    Returns:
      None without a teacher, and for a moving average of the student.

    Raises ConfigError naming the field of a teacher that cannot be loaded.
    """
    teachers = []
    for field, config in members_of(run.teacher):
        if isinstance(config, TrainFirst) and passed is None:
            expected = "logits, of a teacher that is trained here"
            ok = config.outputs == "logits"
            require(ok, f"{field}.outputs", expected, config.outputs)
        match config:
            case FromWeights():
                teacher = _load_weights(config, source, field)
            case FromRun():
                folder = resolve_folder(config.run, run.folder)
                teacher = _load_run(run, folder, config, source, mesh, field)
            case TrainFirst() if passed is not None:
                teacher = _bind(config.model, *passed, f"{field}.model")
            case TrainFirst() if not trained:
                teacher = _trace_untrained(run, config, source, field)
            case TrainFirst():
                folder, last = teacher_folder(run), FromRun()
                teacher = _load_run(run, folder, last, source, mesh, field)
        teachers.append(_adapt_outputs(teacher, config))
    return _join(teachers, run, source)


def trace_teacher(
    run: Run, source: Source, runs: Mapping[str, Run]
) -> BoundModel | None:
    """The teacher of a run, with shapes of one seed in place of its variables.

    runs: those that have no folder yet, by the folders that the run names.
    """
    teachers = []
    for field, config in members_of(run.teacher):
        if isinstance(config, FromRun):
            folder = resolve_folder(config.run, run.folder)
            trained = runs.get(config.run) or _read_run(folder, field)
        else:
            trained = dataclasses.replace(run, model=config.model.filled({}))
        trained = dataclasses.replace(trained, seeds=1)
        with beneath(field, {"model": "model"}):
            bound = trace_model(trained, source.classes, source.shape[-1])
        variables = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), bound.variables
        )
        bound = bound._replace(variables=variables, axis=None)
        teachers.append(_adapt_outputs(bound, config))
    return _join(teachers, run, source)


def _adapt_outputs(
    teacher: BoundModel, config: FromRun | FromWeights | TrainFirst
) -> BoundModel:
    """A teacher with the outputs and the precision of its config."""
    outputs = getattr(config, "outputs", "logits")
    if outputs == "probabilities":
        teacher = take_logarithm(teacher)
    if outputs == "embedding":
        teacher = take_embedding(teacher)
    return cast(teacher, config.precision)


def _join(teachers: list[BoundModel], run: Run, source: Source) -> BoundModel | None:
    """The members of a run's ensemble as one model, or its single teacher."""
    if isinstance(run.teacher, Ensemble):
        _check_same_classes(teachers, source)
        return ensemble_teachers(teachers, run)
    return teachers[0] if teachers else None


def teacher_folder(run: Run) -> pathlib.Path:
    """The folder of a run's single teacher, or of the one that is trained first."""
    if isinstance(run.teacher, FromRun):
        return resolve_folder(run.teacher.run, run.folder)
    return run.folder / "teacher"


def resolve_folder(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The run folder of a name relative to `folder`, or to the working directory.

    `folder` itself may not exist yet.
    """
    relative = pathlib.Path(os.path.normpath(folder / name))
    if (relative / "config.json").is_file():
        return relative
    return _open_once(pathlib.Path(name).expanduser())


@functools.cache
def _open_once(path: pathlib.Path) -> pathlib.Path:
    """The folder at a path, or the copy of one in a bucket."""
    return bucket.open_folder(path, "teacher.run")


def teacher_resolutions(run: Run) -> tuple[int, ...]:
    """The resolution of each teacher of a run; empty without a fixed one."""
    sizes = []
    for field, config in members_of(run.teacher):
        if isinstance(config, FromRun):
            folder = resolve_folder(config.run, run.folder)
            sizes.append(_read_run(folder, field).model.resolution)
        else:
            sizes.append(config.model.resolution)
    return tuple(sizes)


def _load_weights(config: FromWeights, source: Source, field: str) -> BoundModel:
    classes, channels = source.classes, source.shape[-1]
    field = f"{field}.model"
    if config.model.weights:
        _check_published(config.model.weights, source, f"{field}.weights")
    return load_pretrained(config.model, classes, channels, field)


def _check_published(name: str, source: Source, field: str) -> None:
    """Compare the classes of published weights with those of the data.

    Raises ConfigError for another number or order, and warns of other names.
    """
    try:
        published = weights.recognize(name)
    except weights.WeightsError:
        return  # Loading it raises the error of the file.
    if published is None:
        return
    expected = f"a network of {source.classes} classes, as the data has"
    require(published.classes == source.classes, field, expected, published.classes)
    theirs, ours = published.class_names, source.names
    if not (theirs and ours) or all(name.isdigit() for name in ours):
        return
    if sorted(theirs) == sorted(ours):
        expected = "the classes of the data in the order of these weights"
        check_same_names(theirs, ours, field, expected)
    elif theirs != ours:
        text = f"{field}: its classes are {', '.join(theirs)}; those of the data, "
        text += f"which must have the same order, are {', '.join(ours)}"
        warnings.warn(text, stacklevel=2)


def _load_run(
    run: Run,
    folder: pathlib.Path,
    config: FromRun,
    source: Source,
    mesh: Mesh,
    field: str,
) -> BoundModel:
    """The model of a finished run; step 0 is its last checkpoint."""
    trained_run = _read_run(folder, field)
    step = config.step or None
    trained = load_trained(folder, mesh, step_number=step, field=field)
    summary = runlog.read_summary(folder) or {}
    names = tuple(summary.get("class_names", ())[: len(source.names)])
    if names and source.names:
        expected = "a teacher of the same classes in the same order"
        check_same_names(names, source.names, f"{field}.run", expected)
    return fit_seeds(trained, trained_run, run, config.seed, field)


def _read_run(folder: pathlib.Path, field: str) -> Run:
    try:
        return read_run(folder)
    except runlog.RunFolderError as error:
        raise ConfigError(f"{field}.run", reason=str(error)) from error


def _bind(config: ModelConfig, model: Model, variables: Any, field: str) -> BoundModel:
    """A model and its variables from Python, for the images of its config."""
    model, scale = zoo.adapt_inputs(model, config, field), (config.input_scale,)
    variables = jax.tree.map(_to_jax_dtype, variables)
    return BoundModel(model, variables, None, config.resolution, scale)


def _to_jax_dtype(x: Any) -> Any:
    """An array of a dtype that JAX has: float32 in place of float64, but with x64."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == dtype else np.asarray(x, dtype)


def _trace_untrained(
    run: Run, config: TrainFirst, source: Source, field: str
) -> BoundModel:
    """A teacher that is yet to be trained, with shapes in place of values."""
    training = dataclasses.replace(run, model=config.model)
    with beneath(field, {"model": "model"}):
        return trace_model(training, source.classes, source.shape[-1])


def fit_seeds(
    trained: BoundModel,
    trained_run: Run,
    run: Run,
    seed: int | None = None,
    field: str = "teacher",
) -> BoundModel:
    """A trained model for each seed of a run: its own, or one for all.

    Args:
      trained: the model of `trained_run`, with an axis of seeds.
      seed: the one that all share; None as in `FromRun.seed`, with a warning where the
        first of several is taken.
    """
    first, count = trained_run.seed, trained_run.seeds
    if seed is None and count == run.seeds:
        return trained
    if seed is None and count > 1:
        text = f"{field}.run has {count} seeds, this run {run.seeds}: seed {first}"
        warnings.warn(f"{text} teaches ({field}.seed takes another)", stacklevel=2)
    if seed is not None:
        require_seed(seed, trained_run, f"{field}.seed")
    index = 0 if seed is None else seed - first
    shared = jax.tree.map(lambda x: x[index], trained.variables)
    return trained._replace(variables=shared, axis=None)


def _check_same_classes(members: list[BoundModel], source: Source) -> None:
    first, *others = (_count_logits(member, source) for member in members)
    for i, count in enumerate(others, start=1):
        expected = f"{first} classes, as the first member has"
        require(count == first, f"teacher.members.{i}", expected, count)


def _count_logits(teacher: BoundModel, source: Source) -> int:
    size, lead = teacher.resolution, 1 if teacher.axis == 0 else 0
    image = jax.ShapeDtypeStruct((1, size, size, source.shape[-1]), jnp.float32)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x)[lead:], x.dtype), teacher.variables
    )

    def logits(variables: Any, image: Any) -> Any:
        return teacher.model.apply(variables, image, train=False, rngs=None)[0].logits

    return jax.eval_shape(logits, variables, image).shape[-1]


def ensemble_teachers(members: list[BoundModel], run: Run) -> BoundModel:
    """The members of a run's ensemble as one model over a tuple of views."""
    config = run.teacher
    assert isinstance(config, Ensemble)
    equal = (1.0,) * len(members)
    model = ensemble(
        [member.model for member in members],
        mean=config.mean,
        weights=config.weights or equal,
        temperatures=config.temperatures or equal,
        at=run.mean_at or 1.0,
    )
    axis = 0 if any(member.axis == 0 for member in members) else None
    variables = tuple(_with_axis(member, axis, run.seeds) for member in members)
    sizes = tuple(member.resolution for member in members)
    scales = tuple(scale for member in members for scale in member.normalization)
    code = tuple(text for member in members for text in member.code)
    has_logits = all(member.has_logits for member in members)
    return BoundModel(model, variables, axis, sizes, scales, code, has_logits)


def _with_axis(teacher: BoundModel, axis: int | None, seeds: int) -> PyTree:
    """The variables of a teacher, repeated for each seed where `axis` needs that."""
    if teacher.axis == axis:
        return teacher.variables

    def repeat(x: Any) -> Any:
        shape = (seeds, *x.shape)
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(shape, x.dtype)
        return jnp.broadcast_to(x, shape)

    return jax.tree.map(repeat, teacher.variables)


def take_logarithm(teacher: BoundModel) -> BoundModel:
    """The same model with the logarithms of its outputs, probabilities, as logits.

    A probability of 0 becomes the smallest normal number of float32.
    """
    tiny = jnp.finfo(jnp.float32).tiny

    def apply(variables, images, *, train=False, rngs=None):
        result = teacher.model.apply(variables, images, train=train, rngs=rngs)
        output, state = result
        logits = output.logits.astype(jnp.float32)
        return output._replace(logits=jnp.log(jnp.maximum(logits, tiny))), state

    return teacher._replace(model=teacher.model._replace(apply=apply))


def take_embedding(teacher: BoundModel) -> BoundModel:
    """The same model with its outputs as the tap `embedding`, and empty logits."""

    def apply(variables, images, *, train=False, rngs=None):
        result = teacher.model.apply(variables, images, train=train, rngs=rngs)
        output, state = result
        taps = {**output.taps, "embedding": output.logits}
        return Output(output.logits[:, :0], taps), state

    model = teacher.model._replace(apply=apply)
    return teacher._replace(model=model, has_logits=False)


def cast(teacher: BoundModel, precision: str) -> BoundModel:
    """The same model computing in `precision`, with outputs in float32.

    Its parameters are kept in that precision too, at half the memory.
    """
    if precision == "float32":
        return teacher

    def init(key, images):
        return cast_floats(teacher.model.init(key, images), precision)

    model = compute_in(teacher.model, precision)._replace(init=init)
    variables = cast_floats(teacher.variables, precision)
    return teacher._replace(model=model, variables=variables)
