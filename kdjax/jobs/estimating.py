"""The cost of a run before it is trained: one measured step, hours to go."""

import datetime
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from kdjax import setup
from kdjax.config import Run
from kdjax.core import runlog
from kdjax.core.environment import machine
from kdjax.core.types import BoundModel, Model, PyTree
from kdjax.data.datasets import Splits
from kdjax.data.source import select
from kdjax.jobs.distilling import prepare
from kdjax.jobs.start import open_job
from kdjax.jobs.trainer import Training, make_plan
from kdjax.models.zoo import count_parameters
from kdjax.setup.measure import BATCH
from kdjax.train.checkpoint import Checkpoints, has_checkpoints
from kdjax.train.progress import stage


class Size(NamedTuple):
    """Parameters of a network, and its FLOPs for one image (`core.flops`)."""

    parameters: int
    flops: int


class Estimate(NamedTuple):
    """The cost of one training on this machine.

    student, teacher: their sizes; None where no term reads a teacher live.
    epochs: of the training images.
    done: steps that a checkpoint already has.
    step: the measured step.
    evaluation_seconds: of one evaluation on the validation split.
    seconds: of the steps and evaluations to go, without compilation.
    """

    name: str
    student: Size
    teacher: Size | None
    steps: int
    epochs: float
    done: int
    step: setup.StepCost
    evaluation_seconds: float
    seconds: float


def estimate(
    run: Run,
    *,
    splits: Splits | None = None,
    student: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> list[Estimate]:
    """Measure a few steps of each training of a run, and print what it would cost.

    A teacher that is yet to be trained is measured with blank variables. Nothing is
    written in the run folder.

    Args:
      run: as for `distill`, or without a teacher as for `train`.
      splits, student, teacher: as `distill` takes them.

    Returns:
      The cost of each training that is not finished, in their order.
    """
    outline = open_job(run, splits, student, teacher, console)
    job, trainings = prepare(outline)
    estimates = []
    for training in trainings:
        if not runlog.is_finished(training.run.folder):
            with stage(job.console, f"{training.run.name}: measuring a step"):
                estimates.append(_estimate(training))
    job.console.print(_table(estimates))
    total = _duration(sum(x.seconds for x in estimates))
    text = f"time to go: {total} on {machine()}, without compilation"
    job.console.print(text, highlight=False, soft_wrap=True)
    return estimates


def _estimate(training: Training) -> Estimate:
    run, train = training.run, training.data["train"]
    teacher = None if training.teacher is None else _with_values(training.teacher)
    parts = setup.make_parts(
        run,
        train=train,
        student=training.student,
        teacher=teacher,
        mesh=training.mesh,
        initial=training.initial,
    )
    step, state = setup.measure_step(parts, make_plan(run).steps_per_call)
    variables = parts.student_variables(state)
    bound = BoundModel(parts.student, variables, 0, run.model.resolution)
    evaluation = _measure_evaluation(training, bound, teacher)
    done = _last_step(run)
    last = bool(run.steps % run.evaluate_every)
    evaluations = run.steps // run.evaluate_every + last - done // run.evaluate_every
    live = teacher if "teacher" in parts.constants else None
    return Estimate(
        name=run.name,
        student=_size(bound, train.shape[-1]),
        teacher=None if live is None else _size(live, train.shape[-1]),
        steps=run.steps,
        epochs=run.steps * run.batch / len(train),
        done=done,
        step=step,
        evaluation_seconds=evaluation,
        seconds=(run.steps - done) * step.seconds + evaluations * evaluation,
    )


def _with_values(teacher: BoundModel) -> BoundModel:
    """A teacher with zeros where its variables are shapes."""

    def fill(x: Any) -> Any:
        blank = isinstance(x, jax.ShapeDtypeStruct)
        return jnp.zeros(x.shape, x.dtype) if blank else x

    return teacher._replace(variables=jax.tree.map(fill, teacher.variables))


def _size(bound: BoundModel, channels: int) -> Size:
    leaves: PyTree = bound.variables
    if bound.axis == 0:
        leaves = jax.eval_shape(lambda v: jax.tree.map(lambda x: x[0], v), leaves)
    return Size(count_parameters(leaves), setup.image_flops(bound, channels))


def _measure_evaluation(
    training: Training, student: BoundModel, teacher: BoundModel | None
) -> float:
    """Seconds of an evaluation on the validation split, from one batch of it."""
    run, source = training.run, training.data["validation"]
    crop = run.views.evaluation_crop
    measure = setup.make_measure(student, teacher, run.seeds, training.mesh, crop)
    first = select(source, slice(0, BATCH))
    measure(student.variables, first)
    begun = time.perf_counter()
    measure(student.variables, first)
    return (time.perf_counter() - begun) * math.ceil(len(source) / BATCH)


def _last_step(run: Run) -> int:
    if not has_checkpoints(run.folder):
        return 0
    checkpoints = Checkpoints(run.folder)
    try:
        return checkpoints.last_step() or 0
    finally:
        checkpoints.close()


def _table(estimates: list[Estimate]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.caption = "FLOPs are of products and convolutions, forward, for one image"
    table.caption_justify = "left"
    table.add_column("run")
    for x in estimates:
        table.add_column(x.name, justify="right", overflow="fold")
    for head, show in _ROWS.items():
        table.add_row(head, *map(show, estimates))
    return table


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _number(size: int | None, divisor: float = 1, digits: int = 0) -> str:
    return "–" if size is None else f"{size / divisor:,.{digits}f}"


_ROWS: dict[str, Callable[[Estimate], str]] = {
    "student: parameters": lambda x: _number(x.student.parameters),
    "student: MFLOPs": lambda x: _number(x.student.flops, 1e6, 2),
    "teacher: parameters": lambda x: _number(x.teacher and x.teacher.parameters),
    "teacher: MFLOPs": lambda x: _number(x.teacher and x.teacher.flops, 1e6, 2),
    "steps": lambda x: f"{x.steps:,}",
    "steps to go": lambda x: f"{x.steps - x.done:,}",
    "epochs": lambda x: f"{x.epochs:,.1f}",
    "device memory": lambda x: decimal(x.step.memory) if x.step.memory else "–",
    "to compile": lambda x: f"{x.step.compile_seconds:,.1f} s",
    "a step": lambda x: f"{1e3 * x.step.seconds:,.1f} ms",
    "an evaluation": lambda x: f"{x.evaluation_seconds:,.1f} s",
    "time to go": lambda x: _duration(x.seconds),
}
