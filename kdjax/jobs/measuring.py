"""Measuring trained models and teachers, and reporting finished runs."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.config import require
from kdjax.core.types import BoundModel, Model
from kdjax.data.datasets import Splits
from kdjax.jobs.start import Job
from kdjax.setup.identity import read_identity
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

# Validation images on which a teacher is measured before it is used.
SAMPLE = 512


def evaluate(
    folder: str | pathlib.Path,
    *,
    split: str = "test",
    checkpoint: str = "last",
    splits: Splits | None = None,
    model: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
) -> dict[str, list[float]]:
    """Measure the trained model of a run folder, one number a seed.

    Args:
      folder: a finished run's.
      split: "test", "validation" or "train", as the run's config names them.
      checkpoint: "last" or "best" (on validation).
      splits, model, teacher: the objects passed to `distill` or `train`. Agreement and
        KL are left out where such a teacher is not passed again.
    """
    folder = pathlib.Path(folder).expanduser()
    names = ("test", "validation", "train")
    require(split in names, "split", " or ".join(names), split)
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    # The folder may have been moved since the run began.
    run = dataclasses.replace(setup.read_run(folder), workdir=str(folder))
    overrides = read_identity(folder).overrides or {}
    for name, value in (("splits", splits), ("model", model)):
        expected = f"what this run was given: evaluate(folder, {name}=...), from Python"
        require(name not in overrides or value is not None, name, expected, value)
    source = setup.load_source(run, split, splits)
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    step = None
    if checkpoint == "best":
        checkpoints = Checkpoints(folder, read_only=True)
        step = checkpoints.best_step()
        checkpoints.close()
    student = setup.load_trained(folder, mesh, model=model, step_number=step)
    bound = None
    if teacher is not None or "teacher" not in overrides:
        bound = setup.load_teacher(run, source, mesh, teacher)
    measure = setup.make_measure(
        student, bound, run.seeds, mesh, run.views.evaluation_crop
    )
    return measure(student.variables, source)


# What each metric is, for people.
MEANINGS = {
    "accuracy": "fraction whose most probable class is the label",
    "top_5": "fraction whose label is among the 5 most probable classes",
    "nll": "mean negative log-likelihood of the label, nats",
    "calibration_error": "expected calibration error, 15 bins",
    "agreement": "fraction whose most probable class is the teacher's",
    "kl": "mean KL(teacher || student) at temperature 1, nats",
}


def format_results(
    folder: str | pathlib.Path,
    results: dict[str, list[float]],
    *,
    split: str,
    checkpoint: str,
) -> str:
    """The results of `evaluate` as a table: a column a seed, and each metric's meaning.

    Its first line names the split and the checkpoint.
    """
    run = setup.read_run(pathlib.Path(folder).expanduser())
    name = getattr(run.data, split)
    seeds = (f"seed {run.seed + i}" for i in range(run.seeds))
    heads = " ".join(f"{seed:>9}" for seed in seeds)
    lines = [f"# {split} split ({name}), {checkpoint} checkpoint", f"# {'':16} {heads}"]
    for metric, values in results.items():
        numbers = " ".join(f"{value:9.6f}" for value in values)
        meaning = f"  # {MEANINGS[metric]}" if metric in MEANINGS else ""
        lines.append(f"{metric:18} {numbers}{meaning}")
    return "\n".join(lines)


def check_teacher(teacher: BoundModel, job: Job) -> None:
    """Print the accuracy of a job's teacher on a few images; warn if it is near chance.

    So it is with the wrong scale of pixels or the wrong order of classes.

    Raises ConfigError for logits that are not finite.
    """
    run, source = job.run, job.data["validation"]
    variables = teacher.variables
    if teacher.axis is None:
        variables = jax.tree.map(lambda x: jnp.asarray(x)[None], variables)
    seeds = run.seeds if teacher.axis == 0 else 1
    measure = setup.make_measure(
        teacher, None, seeds, job.mesh, run.views.evaluation_crop
    )
    metrics = measure(variables, source, limit=SAMPLE)
    count = min(SAMPLE, len(source))
    expected = f"logits that are numbers for the first {count} validation images"
    finite = bool(np.isfinite(metrics["nll"]).all())
    require(finite, "teacher", expected, "NaN or infinity")
    accuracy = float(np.mean(metrics["accuracy"]))
    text = f"teacher: {accuracy:.1%} of the first {count} validation images"
    job.console.print(text, highlight=False)
    if accuracy < min(2 / source.classes, 0.5 + 0.5 / source.classes):
        job.console.print(
            f"warning: near chance (1 in {source.classes}); are the teacher's pixels "
            "(teacher.model.normalization) and the order of its classes right?",
            style="yellow",
            highlight=False,
        )


def report(folders: list[str], out: str | pathlib.Path = "report") -> str:
    """Write `report.md` and `curves.png` over several run folders; returns the text.

    For the folder of a sweep there is `kdjax.experiments.report_sweep`.

    Raises:
      RunFolderError: a folder does not contain a run.
    """
    return reports.write_report(folders, out)
