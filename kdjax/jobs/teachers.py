"""The teacher of a run: handed over, published, of another run, or trained first."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kdjax import setup
from kdjax.config import Member, Run, beneath, require
from kdjax.config import Model as ModelConfig
from kdjax.config import Teacher as TeacherConfig
from kdjax.core import runlog
from kdjax.core.types import BoundModel, Model
from kdjax.data.source import Source, check_same_names
from kdjax.jobs.start import Job, is_finished
from kdjax.models.normalization import normalize_inputs
from kdjax.setup.identity import fingerprint_data

LOOK = 512


def teacher_folder(run: Run, folder: pathlib.Path) -> pathlib.Path:
    """Where the teacher of a run folder is: named in its config, or beneath it."""
    name = run.teacher.run if run.teacher else ""
    if not name:
        return folder / "teacher"
    # Also where the run's own folder is not there yet.
    beside = pathlib.Path(os.path.normpath(folder / name))
    return beside if (beside / "config.json").is_file() else _folder(name)


def _folder(name: str) -> pathlib.Path:
    return pathlib.Path(name).expanduser()


def prepare_teacher(
    run: Run, folder: pathlib.Path, mesh: Mesh, job: Job
) -> tuple[Run, Job]:
    """The run that trains the teacher, checked, with its data."""
    teacher_run = setup.teacher_run(run, folder)
    source = setup.load_source(teacher_run, "train", job.splits, "teacher.train")
    teacher_job = job._replace(
        data={**job.data, "train": source},
        content={**job.content, **fingerprint_data({"train": source})},
        student=None,
        overrides={k: v for k, v in job.overrides.items() if k == "splits"},
    )
    fields = ("model", "optim", "views", "steps")
    with beneath("teacher", {name: name for name in fields}):
        if not is_finished(folder, teacher_run, teacher_job, mesh):
            setup.check_fit(teacher_run, train=source, student=None, teacher=None)
    return teacher_run, teacher_job


def teacher_loader(
    run: Run,
    given: tuple[Model, Any] | None,
    folder: pathlib.Path,
    mesh: Mesh,
    source: Source,
) -> Callable[[], BoundModel | None]:
    """A function that loads a run's teacher, or its several as one, once it is there.

    given: a model and its variables from Python, in place of the first teacher.
    folder: the first teacher's, where it has one.
    source: the training examples.
    """
    asked = run.teacher
    if asked is None or asked.kind == "average":
        return lambda: None

    def load() -> BoundModel:
        if given is not None:
            first = _handed_over(asked.model, *given)
        else:
            first = _load(run, asked, folder, mesh, source, "teacher")
        return with_others(run, first, mesh, source)

    return load


def _handed_over(config: ModelConfig, model: Model, variables: Any) -> BoundModel:
    """A model and its variables from Python; the config says what images it sees."""
    model = normalize_inputs(model, config.pixels, "teacher.model")
    variables = jax.tree.map(_known_to_jax, variables)
    return BoundModel(model, variables, None, config.resolution, (config.pixels,))


def _known_to_jax(x: Any) -> Any:
    """An array of a dtype that JAX has: float32 in place of float64, but with x64."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == dtype else np.asarray(x, dtype)


def with_others(run: Run, first: BoundModel, mesh: Mesh, source: Source) -> BoundModel:
    """The first teacher and those of `teacher.also` as one, at their precision."""
    assert run.teacher is not None
    others = [
        _load(run, member, _folder(member.run), mesh, source, f"teacher.also.{i}")
        for i, member in enumerate(run.teacher.also)
    ]
    counts = [_classes(each, source) for each in (first, *others)] if others else []
    for i, count in enumerate(counts[1:]):
        want = f"{counts[0]} classes, as the first teacher has"
        require(count == counts[0], f"teacher.also.{i}", want, count)
    whole = setup.together(first, others, run)
    return setup.at_precision(whole, run.teacher.precision)


def _load(
    run: Run,
    asked: TeacherConfig | Member,
    folder: pathlib.Path,
    mesh: Mesh,
    source: Source,
    field: str,
) -> BoundModel:
    if asked.model.weights and not asked.run:
        classes, channels = source.classes, source.shape[-1]
        return setup.published(asked.model, classes, channels, f"{field}.model")
    found = folder / "config.json"
    require(found.is_file(), f"{field}.run", "a run folder", str(folder))
    its = setup.read_run(folder)
    check_described(asked, its.model, folder, field)
    step = asked.step or None
    trained = setup.load_trained(folder, mesh, step_number=step, field=field)
    summary = runlog.read_summary(folder) or {}
    names = tuple(summary.get("class_names", ())[: len(source.names)])
    if names and source.names:
        want = "a teacher of the same classes in the same order"
        check_same_names(names, source.names, f"{field}.run", want)
    return setup.fit_seeds(trained, its.seeds, run, f"{field}.run")


def check_described(
    asked: TeacherConfig | Member, model: ModelConfig, folder: pathlib.Path, field: str
) -> None:
    """A teacher that is the run in `folder` brings its `model`: refuse another one."""
    ok = asked.model in (model, type(asked).model)
    want = f"as it is by default (a run brings its own), or that of {folder}"
    require(ok, f"{field}.model", want, asked.model)


def _classes(teacher: BoundModel, source: Source) -> int:
    """How many logits a teacher has."""
    size, lead = teacher.resolution, 1 if teacher.axis == 0 else 0
    image = jax.ShapeDtypeStruct((1, size, size, source.shape[-1]), jnp.float32)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x)[lead:], x.dtype), teacher.variables
    )

    def logits(variables: Any, image: Any) -> Any:
        return teacher.model.apply(variables, image, train=False, rngs=None)[0].logits

    return jax.eval_shape(logits, variables, image).shape[-1]


def look_at_teacher(run: Run, teacher: BoundModel, mesh: Mesh, job: Job) -> None:
    """Say how good the teacher is on a few images; warn if it is hardly better than
    chance, as it is with the wrong scale of pixels or the wrong order of classes."""
    source = job.data["validation"]
    seeds = run.seeds if teacher.axis == 0 else 1
    measure = setup.make_measure(teacher, None, seeds, mesh, run.views.central)
    variables = teacher.variables
    if teacher.axis is None:
        variables = jax.tree.map(lambda x: jnp.asarray(x)[None], variables)
    measured = measure(variables, source, limit=LOOK)
    looked = min(LOOK, len(source))
    want = f"logits that are numbers for the first {looked} validation images"
    finite = bool(np.isfinite(measured["nll"]).all())
    require(finite, "teacher", want, "NaN or infinity")
    accuracy = float(np.mean(measured["accuracy"]))
    text = f"teacher: {accuracy:.1%} of the first {looked} validation images"
    job.console.print(text, highlight=False)
    if accuracy < min(2 / source.classes, 0.5 + 0.5 / source.classes):
        job.console.print(
            f"warning: near chance (1 in {source.classes}); are the teacher's pixels "
            "(teacher.model.pixels) and the order of its classes right?",
            style="yellow",
            highlight=False,
        )
