"""One step of a run made again, with every number in it checked."""

import dataclasses
import os
import pathlib
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from kdjax import setup
from kdjax.config import ConfigError, require, to_path
from kdjax.core import bucket
from kdjax.core.types import Model, PyTree
from kdjax.data.datasets import Splits
from kdjax.jobs.distilling import prepare
from kdjax.jobs.start import open_job
from kdjax.jobs.trainer import Training, first_state
from kdjax.models.weights.files import write_arrays
from kdjax.train import compiled
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.progress import stage


class Replay(NamedTuple):
    """A step that was made again, of one seed.

    step, seed: which.
    start: the step of the checkpoint from which it was reached.
    metrics: of the step, as in `metrics.jsonl` with `log_every` 1.
    first: the operation that gives the first NaN, and its line; empty without a NaN.
    broken: names of the arrays that are not finite after the step.
    examples: indices in the training split of the batch's examples.
    views: images of student and teachers, labels and the rest that the step saw.
    """

    step: int
    seed: int
    start: int
    metrics: dict[str, float]
    first: str
    broken: list[str]
    examples: np.ndarray
    views: dict[str, np.ndarray]


def replay(
    folder: str | pathlib.Path,
    step: int,
    *,
    seed: int | None = None,
    out: str | pathlib.Path = "",
    splits: Splits | None = None,
    model: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
    console: Console | None = None,
) -> Replay:
    """Make one step of a run again, on its batch and its views, with checked numbers.

    The steps from the last checkpoint before it are trained again first. Nothing in the
    run folder changes.

    Args:
      folder: of the run, finished or not.
      step: number of the step, from 1; the text of an error and `metrics.jsonl` have
        it.
      seed: one of the run's seeds; its first by default.
      out: a .npz file for the batch: images that student and teacher saw, labels and
        the rest.
      splits, model, teacher: the objects passed to `distill` or `train`.

    Raises:
      ConfigError: a step or seed that the run has not.
      RunFolderError: there is no run in the folder.
    """
    folder = bucket.open_folder(to_path(folder, "folder"), "folder")
    run = setup.read_run(folder)
    require(1 <= step <= run.steps, "step", f"1 to {run.steps}", step)
    seeds = range(run.seed, run.seed + run.seeds)
    seed = run.seed if seed is None else seed
    expected = f"one of its seeds, {seeds[0]} to {seeds[-1]}"
    require(seed in seeds, "seed", expected, seed)
    # One device, on which any part of the step can be looked at.
    run = dataclasses.replace(
        run,
        workdir=str(folder),
        compute=run.compute.on_one_device(),
        baselines=(),
    )
    job, trainings = prepare(open_job(run, splits, model, teacher, console))
    training = trainings[-1]
    with stage(job.console, f"training again up to step {step - 1}"):
        parts, state, inputs, start = _reach(training, step)
    at = seed - run.seed
    found = _make_step(parts, state, inputs, at)
    if out:
        write_arrays(pathlib.Path(out), found["views"])
    return Replay(step, seed, start, **found)


def _reach(training: Training, step: int) -> tuple[setup.Parts, PyTree, PyTree, int]:
    """The parts of a run, its state before a step, the batch, and where it began."""
    run = training.run
    parts = setup.make_parts(
        run,
        train=training.data["train"],
        student=training.student,
        teacher=training.load_teacher(),
        mesh=training.mesh,
        initial=training.initial,
    )
    checkpoints = Checkpoints(run.folder)
    state, start = first_state(parts, checkpoints, before=step)
    one = parts.compile_step()
    constants = setup.place_constants(parts)
    batches = setup.make_batches(parts)(start)
    running = one.enter(state)
    for _ in range(start, step - 1):
        batch = jax.tree.map(lambda x: x[None], next(batches))
        running, _ = one.call(running, batch, constants)
    return parts, one.leave(running), (next(batches), constants), start


def _make_step(
    parts: setup.Parts, state: PyTree, inputs: PyTree, at: int
) -> dict[str, Any]:
    """The fields of a `Replay` after a step. at: the position of the seed."""
    batch, constants = inputs
    batch = {
        k: jax.tree.map(lambda x: x[at], v) if compiled.SEED_AXES[k] == 0 else v
        for k, v in batch.items()
    }
    constants = {
        k: jax.tree.map(lambda x: x[at], v) if parts.constant_axes.get(k) == 0 else v
        for k, v in constants.items()
    }
    state = jax.tree.map(lambda x: x[at], state)
    view = parts.view(state.step, batch, constants)
    new, metrics = jax.jit(parts.step)(state, batch, constants)
    return {
        "metrics": {k: float(x) for k, x in metrics.items()},
        "first": _find_nan(parts.step, state, batch, constants),
        "broken": _broken(new),
        "examples": np.asarray(batch["rows"]["index"]),
        "views": _arrays(view._asdict()),
    }


def _find_nan(step: Callable[..., Any], *arguments: Any) -> str:
    """The operation that gives the first NaN, and its line; empty without a NaN.

    The step is computed operation by operation, and each result is looked at.
    """
    try:
        with jax.debug_nans(True), jax.disable_jit():
            step(*arguments)
    except (FloatingPointError, ConfigError) as raised:
        # An error in a function of the user's has its field.
        error = raised.__cause__ if isinstance(raised, ConfigError) else raised
        if not isinstance(error, FloatingPointError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        own = [x for x in frames if f"{os.sep}site-packages{os.sep}" not in x.filename]
        place = f", {own[-1].filename}:{own[-1].lineno}" if own else ""
        return str(error).partition(". ")[0].partition("\n")[0] + place
    return ""


def _named(tree: PyTree) -> dict[str, Any]:
    flat = jax.tree_util.tree_leaves_with_path(tree)
    keystr = jax.tree_util.keystr
    return {keystr(path, simple=True, separator="/"): x for path, x in flat}


def _broken(state: PyTree) -> list[str]:
    """Names of the arrays of a state that are not finite."""
    arrays = _named(state)
    return [name for name, x in arrays.items() if not bool(jnp.isfinite(x).all())]


def _arrays(tree: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in _named(tree).items()}


def format_replay(found: Replay) -> str:
    """The result of `replay` as lines of text."""
    lines = [f"step {found.step}, seed {found.seed}, from checkpoint {found.start}"]
    lines += [f"{name:18} {value:.9g}" for name, value in found.metrics.items()]
    examples = " ".join(str(i) for i in found.examples[:8])
    lines.append(f"{'examples':18} {examples}{' ...' * (len(found.examples) > 8)}")
    lines.append(f"{'first NaN':18} {found.first or 'none'}")
    broken = ", ".join(found.broken[:5]) + ", ..." * (len(found.broken) > 5)
    lines.append(f"{'not finite after':18} {broken or 'none'}")
    return "\n".join(lines)
