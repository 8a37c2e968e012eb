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
from kdjax.config import (
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    MovingAverage,
    Run,
    TrainFirst,
    beneath,
    members_of,
    require,
)
from kdjax.core import runlog
from kdjax.core.types import BoundModel, Model
from kdjax.data.source import Source, check_same_names
from kdjax.jobs.start import Job, is_finished
from kdjax.models.normalization import normalize_inputs
from kdjax.setup.identity import fingerprint_data

LOOK = 512


def teacher_folder(run: Run, folder: pathlib.Path) -> pathlib.Path:
    """The folder of a run's single teacher, or of the one that is trained first."""
    if isinstance(run.teacher, FromRun):
        return resolve_folder(run.teacher.run, folder)
    return folder / "teacher"


def resolve_folder(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The run folder of a name: relative to `folder`, or to the working directory."""
    # Also where the run's own folder is not there yet.
    sibling = pathlib.Path(os.path.normpath(folder / name))
    if (sibling / "config.json").is_file():
        return sibling
    return pathlib.Path(name).expanduser()


def teacher_resolutions(run: Run) -> tuple[int, ...]:
    """The resolution of each member of a run's teacher; empty without a fixed one."""
    sizes = []
    for field, member in members_of(run.teacher):
        if isinstance(member, FromRun):
            folder = resolve_folder(member.run, run.folder)
            sizes.append(_read_run(folder, field).model.resolution)
        else:
            sizes.append(member.model.resolution)
    return tuple(sizes)


def _read_run(folder: pathlib.Path, field: str) -> Run:
    config = folder / "config.json"
    require(config.is_file(), f"{field}.run", "a run folder", str(folder))
    return setup.read_run(folder)


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
    untrained: BoundModel | None = None,
) -> Callable[[], BoundModel | None]:
    """A function that loads a run's teacher, or its ensemble as one, once it is there.

    given: a model and its variables from Python, in place of the one of kind train.
    folder: the run folder that relative names start from.
    source: the training examples.
    untrained: shapes in place of the teacher that is trained first.
    """
    if run.teacher is None or isinstance(run.teacher, MovingAverage):
        return lambda: None

    def load() -> BoundModel:
        members = []
        for field, member in members_of(run.teacher):
            if isinstance(member, TrainFirst) and given is not None:
                loaded = _handed_over(member.model, *given)
            elif isinstance(member, TrainFirst) and untrained is not None:
                loaded = untrained
            else:
                loaded = _load(run, member, folder, mesh, source, field)
            members.append(setup.at_precision(loaded, member.precision))
        if not isinstance(run.teacher, Ensemble):
            return members[0]
        counts = [_classes(each, source) for each in members]
        for i, count in enumerate(counts[1:], start=1):
            want = f"{counts[0]} classes, as the first member has"
            require(count == counts[0], f"teacher.members.{i}", want, count)
        return setup.average(members, run)

    return load


def _handed_over(config: ModelConfig, model: Model, variables: Any) -> BoundModel:
    """A model and its variables from Python; the config says what images it sees."""
    model = normalize_inputs(model, config.normalization, "teacher.model")
    variables = jax.tree.map(_known_to_jax, variables)
    return BoundModel(
        model, variables, None, config.resolution, (config.normalization,)
    )


def _known_to_jax(x: Any) -> Any:
    """An array of a dtype that JAX has: float32 in place of float64, but with x64."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return x if x.dtype == dtype else np.asarray(x, dtype)


def _load(
    run: Run,
    member: FromRun | FromWeights | TrainFirst,
    folder: pathlib.Path,
    mesh: Mesh,
    source: Source,
    field: str,
) -> BoundModel:
    if isinstance(member, FromWeights):
        classes, channels = source.classes, source.shape[-1]
        return setup.published(member.model, classes, channels, f"{field}.model")
    if isinstance(member, TrainFirst):
        return _load_run(run, folder / "teacher", None, mesh, source, field)
    its = resolve_folder(member.run, folder)
    return _load_run(run, its, member.step or None, mesh, source, field)


def _load_run(
    run: Run,
    folder: pathlib.Path,
    step: int | None,
    mesh: Mesh,
    source: Source,
    field: str,
) -> BoundModel:
    its = _read_run(folder, field)
    trained = setup.load_trained(folder, mesh, step_number=step, field=field)
    summary = runlog.read_summary(folder) or {}
    names = tuple(summary.get("class_names", ())[: len(source.names)])
    if names and source.names:
        want = "a teacher of the same classes in the same order"
        check_same_names(names, source.names, f"{field}.run", want)
    return setup.fit_seeds(trained, its.seeds, run, f"{field}.run")


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
    measure = setup.make_measure(teacher, None, seeds, mesh, run.views.evaluation_crop)
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
            "(teacher.model.normalization) and the order of its classes right?",
            style="yellow",
            highlight=False,
        )
