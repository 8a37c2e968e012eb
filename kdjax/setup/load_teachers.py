"""Loading the teacher of a run: from Python, a run folder or published weights."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax.config import Member, Run, beneath, require
from kdjax.config import Model as ModelConfig
from kdjax.config import Teacher as TeacherConfig
from kdjax.core import runlog
from kdjax.core.types import BoundModel, Model, Output, PyTree
from kdjax.data.source import Source, check_same_names
from kdjax.models.normalization import normalize_inputs
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
    """The teacher of a run, or its several teachers as one, at their precision.

    Args:
      source: the training examples, whose classes a teacher has.
      passed: a model and its variables from Python, in place of the first teacher.
      trained: False gives shapes in place of the variables of a teacher that is to be
        trained first.

    Returns:
      None without a teacher, and for one that is the average of the student.

    Raises ConfigError naming the field of a teacher that cannot be loaded.
    """
    config = run.teacher
    if config is None or config.kind == "average":
        return None
    if passed is not None:
        first = _bind(config.model, *passed)
    elif not trained and config.trained_first:
        first = _trace_untrained(run, config, source)
    else:
        folder = teacher_folder(run)
        first = _load_member(run, config, folder, source, mesh, "teacher")
    others = [
        _load_member(
            run, member, _expand(member.run), source, mesh, f"teacher.also.{i}"
        )
        for i, member in enumerate(config.also)
    ]
    _check_same_classes([first, *others], source)
    return cast(ensemble_teachers(first, others, run), config.precision)


def teacher_folder(run: Run) -> pathlib.Path:
    """The run folder of a run's teacher: the one its config names, or a subfolder."""
    name = run.teacher.run if run.teacher else ""
    if not name:
        return run.folder / "teacher"
    # Relative to the run's folder, which may not exist yet, or to the current one.
    relative = pathlib.Path(os.path.normpath(run.folder / name))
    return relative if (relative / "config.json").is_file() else _expand(name)


def _expand(name: str) -> pathlib.Path:
    return pathlib.Path(name).expanduser()


def _bind(config: ModelConfig, model: Model, variables: Any) -> BoundModel:
    """A model and its variables from Python, at the config's resolution and pixels."""
    model = normalize_inputs(model, config.pixels, "teacher.model")
    variables = jax.tree.map(_to_jax_dtype, variables)
    return BoundModel(model, variables, None, config.resolution, (config.pixels,))


def _to_jax_dtype(x: Any) -> Any:
    """An array of a dtype that JAX has: float32 in place of float64, but with x64."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == dtype else np.asarray(x, dtype)


def _trace_untrained(run: Run, config: TeacherConfig, source: Source) -> BoundModel:
    """A teacher that is yet to be trained, with shapes in place of values."""
    training = dataclasses.replace(run, model=config.model)
    with beneath("teacher", {"model": "model"}):
        return trace_model(training, source.classes, source.shape[-1])


def _load_member(
    run: Run,
    config: TeacherConfig | Member,
    folder: pathlib.Path,
    source: Source,
    mesh: Mesh,
    field: str,
) -> BoundModel:
    """One teacher, of published weights or of a run folder."""
    if config.model.weights and not config.run:
        classes, channels = source.classes, source.shape[-1]
        return load_pretrained(config.model, classes, channels, f"{field}.model")
    exists = (folder / "config.json").is_file()
    require(exists, f"{field}.run", "a run folder", str(folder))
    training = read_run(folder)
    check_model(config, training.model, folder, field)
    step = config.step or None
    trained = load_trained(folder, mesh, step_number=step, field=field)
    summary = runlog.read_summary(folder) or {}
    names = tuple(summary.get("class_names", ())[: len(source.names)])
    if names and source.names:
        expected = "a teacher of the same classes in the same order"
        check_same_names(names, source.names, f"{field}.run", expected)
    return fit_seeds(trained, training.seeds, run, f"{field}.run")


def check_model(
    config: TeacherConfig | Member, model: ModelConfig, folder: pathlib.Path, field: str
) -> None:
    """Refuse a config's `model` that is not the one of its run folder."""
    ok = config.model in (model, type(config).model)
    expected = f"as it is by default (a run brings its own), or that of {folder}"
    require(ok, f"{field}.model", expected, config.model)


def fit_seeds(
    trained: BoundModel, seeds: int, run: Run, field: str = "teacher.run"
) -> BoundModel:
    """A model of `seeds` seeds for each seed of a run: its own, or one for all."""
    if seeds == 1 and run.seeds > 1:
        first = jax.tree.map(lambda x: x[0], trained.variables)
        return trained._replace(variables=first, axis=None)
    expected = f"a run of {run.seeds} seeds, or of 1 that all share"
    require(seeds == run.seeds, field, expected, seeds)
    return trained


def _check_same_classes(teachers: list[BoundModel], source: Source) -> None:
    if len(teachers) == 1:
        return
    first, *others = (_count_logits(teacher, source) for teacher in teachers)
    for i, count in enumerate(others):
        expected = f"{first} classes, as the first teacher has"
        require(count == first, f"teacher.also.{i}", expected, count)


def _count_logits(teacher: BoundModel, source: Source) -> int:
    size, lead = teacher.resolution, 1 if teacher.axis == 0 else 0
    image = jax.ShapeDtypeStruct((1, size, size, source.shape[-1]), jnp.float32)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x)[lead:], x.dtype), teacher.variables
    )

    def logits(variables: Any, image: Any) -> Any:
        return teacher.model.apply(variables, image, train=False, rngs=None)[0].logits

    return jax.eval_shape(logits, variables, image).shape[-1]


def ensemble_teachers(
    first: BoundModel, others: list[BoundModel], run: Run
) -> BoundModel:
    """Several teachers as one model over a tuple of views; a single one unchanged."""
    if not others:
        return first
    config = run.teacher
    assert config is not None
    teachers, members = [first, *others], [config, *config.also]
    model = ensemble(
        [teacher.model for teacher in teachers],
        mean=config.mean,
        weights=[member.weight for member in members],
        temperatures=[member.temperature for member in members],
        at=run.mean_at or 1.0,
    )
    axis = 0 if any(teacher.axis == 0 for teacher in teachers) else None
    variables = tuple(_with_axis(teacher, axis, run.seeds) for teacher in teachers)
    sizes = tuple(teacher.resolution for teacher in teachers)
    pixels = tuple(scale for teacher in teachers for scale in teacher.pixels)
    code = tuple(text for teacher in teachers for text in teacher.code)
    return BoundModel(model, variables, axis, sizes, pixels, code)


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


def cast(teacher: BoundModel, precision: str) -> BoundModel:
    """The same model computing in `precision`, with outputs in float32.

    Its parameters are kept in that precision too, at half the memory.
    """
    if precision == "float32":
        return teacher

    def cast_leaf(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, precision)
        return jnp.asarray(x, precision)

    def apply(variables, images, *, train=False, rngs=None):
        images = jax.tree.map(lambda x: x.astype(precision), images)
        result = teacher.model.apply(variables, images, train=train, rngs=rngs)
        output, state = result
        outputs = jax.tree.map(lambda x: x.astype(jnp.float32), tuple(output))
        return Output(*outputs), state

    def init(key, images):
        return jax.tree.map(cast_leaf, teacher.model.init(key, images))

    variables = jax.tree.map(cast_leaf, teacher.variables)
    return teacher._replace(model=Model(init, apply), variables=variables)
