"""Measuring trained models and teachers, and reporting finished runs."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.config import Run, require, to_path
from kdjax.core import bucket, runlog
from kdjax.core.types import BoundModel, Model
from kdjax.data.datasets import Splits
from kdjax.data.source import Source, check_same_names, select
from kdjax.jobs.start import Job
from kdjax.setup.identity import (
    fingerprint_data,
    fingerprint_teacher,
    read_identity,
    warn_of_changes,
)
from kdjax.teachers.sanity import are_probabilities, find_permutation, spread_sample
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

# Validation images on which a teacher is measured before it is used.
SAMPLE = 512


def evaluate(
    folder: str | pathlib.Path,
    *,
    split: str = "test",
    checkpoint: str = "last",
    network: str = "",
    splits: Splits | None = None,
    model: Model | None = None,
    teacher: tuple[Model, Any] | None = None,
) -> dict[str, list[float]]:
    """Measure the trained model of a run folder, one number a seed.

    Args:
      folder: a finished run's.
      split: "test", "validation" or "train", as the run's config names them.
      checkpoint: "last" or "best" (on validation).
      network: one of `run.networks`; empty: the one that the run evaluates.
      splits, model, teacher: the objects passed to `distill` or `train`. Agreement and
        KL are left out where such a teacher is not passed again.

    Images or a teacher that changed since the run began are named in a warning.

    Raises:
      ConfigError: an argument that cannot be used, or a split of other classes.
      RunFolderError: there is no run in the folder.
    """
    folder = bucket.open_folder(to_path(folder, "folder"), "folder")
    names = ("test", "validation", "train")
    require(split in names, "split", " or ".join(names), split)
    require(checkpoint in ("last", "best"), "checkpoint", "last or best", checkpoint)
    # The folder may have been moved since the run began.
    run = dataclasses.replace(setup.read_run(folder), workdir=str(folder))
    overrides = read_identity(folder).overrides or {}
    for name, value in (("splits", splits), ("model", model)):
        expected = f"what this run was given: evaluate(folder, {name}=...), from Python"
        ok = name not in overrides or value is not None or (name == "model" and network)
        require(bool(ok), name, expected, value)
    source = setup.load_source(run, split, splits)
    summary = runlog.read_summary(folder) or {}
    _check_channels(source, summary.get("channels"), f"data.{split}")
    names = summary.get("class_names")
    if names and source.names:
        expected = "the classes of the run in the same order"
        check_same_names(source.names, tuple(names), f"data.{split}", expected)
    mesh = sharding.make_mesh(configs.Compute(data=1), 1)
    step = None
    if checkpoint == "best":
        checkpoints = Checkpoints(folder)
        step = checkpoints.best_step()
        checkpoints.close()
    student = setup.load_trained(
        folder, mesh, model=model, step_number=step, network=network
    )._replace(resolution=run.model.resolution)
    bound = None
    if teacher is not None or "teacher" not in overrides:
        bound = setup.load_teacher(run, source, mesh, teacher)
    content = {**fingerprint_data({split: source}), **fingerprint_teacher(bound)}
    warn_of_changes(folder, content, "the metrics are of what is there now")
    measure = setup.make_measure(
        student, bound, run.seeds, mesh, run.views.evaluation_crop
    )
    return measure(student.variables, source)


def _check_channels(source: Source, channels: int | None, field: str) -> None:
    """Refuse images of other channels than a run's. channels: None while unfinished."""
    got = source.shape[-1]
    expected = f"images of {channels} channels, as the run has"
    require(channels in (None, got), field, expected, got)


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
    folder = bucket.open_folder(to_path(folder, "folder"), "folder")
    run = setup.read_run(folder)
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
    """Print the accuracy of a job's teacher on some validation images.

    Warns of accuracy near chance, of another order of the classes, and of
    probabilities in place of logits.

    One without logits is left out.

    Raises ConfigError for outputs that are not finite.
    """
    if not teacher.has_logits:
        return
    run, whole = job.run, job.data["validation"]
    source = select(whole, spread_sample(len(whole), SAMPLE))
    seeds = run.seeds if teacher.axis == 0 else 1
    crop = run.views.evaluation_crop
    outputs = setup.predict_all(teacher, source, seeds, job.mesh, crop)
    count = len(source)
    expected = f"logits that are numbers for {count} validation images"
    finite = bool(np.isfinite(outputs).all())
    require(finite, "teacher", expected, "NaN or infinity")
    accuracy = float((outputs.argmax(-1) == source.labels).mean())
    of = "all" if count == len(whole) else "an even sample of"
    text = f"teacher: {accuracy:.1%} of {of} {count} validation images"
    job.console.print(text, highlight=False)
    stated = _stated_accuracy(run)
    for line in _warnings(outputs, source, accuracy, stated):
        job.console.print(f"warning: {line}", style="yellow", highlight=False)


def _stated_accuracy(run: Run) -> float | None:
    """The accuracy that the run of a single teacher reports on its test split."""
    if not isinstance(run.teacher, configs.FromRun):
        return None
    summary = runlog.read_summary(setup.teacher_folder(run)) or {}
    values = summary.get("test", {}).get("accuracy")
    return float(np.mean(values)) if values else None


def _warnings(
    outputs: np.ndarray, source: Source, accuracy: float, stated: float | None
) -> Iterator[str]:
    """Signs of a wrong teacher in its outputs, a line each.

    outputs: `[seeds, examples, classes]`.
    stated: the accuracy that it should have, if that is known.
    """
    if are_probabilities(outputs):
        yield (
            "the teacher's outputs are probabilities, and are taken for logits: set "
            "teacher.outputs probabilities, or end the network before its softmax"
        )
    permutation = find_permutation(outputs[0], source.labels)
    if permutation is not None:
        order = permutation.order
        label = int(np.flatnonzero(order != np.arange(len(order)))[0])
        name = f" ({source.names[label]})" if source.names else ""
        yield (
            f"the teacher has its classes in another order: what label {label}{name} "
            f"is here is its class {order[label]}; reordered it would have "
            f"{permutation.accuracy:.1%}"
        )
    elif accuracy < min(2 / source.classes, 0.5 + 0.5 / source.classes):
        yield (
            f"near chance (1 in {source.classes}); are the teacher's pixels "
            "(teacher.model.normalization) and the order of its classes right?"
        )
    elif stated is not None and accuracy < stated - 0.1 - 1.5 / len(source) ** 0.5:
        yield (
            f"its own run reports {stated:.1%}; are these images of the same kind, and "
            "in the same scale and order of classes?"
        )


def report(
    folders: Iterable[runlog.Path] | runlog.Path, out: runlog.Path = "report"
) -> str:
    """Write `report.md` and `curves.png` over run folders, or one; returns the text.

    For the folder of a sweep there is `kdjax.experiments.report_sweep`.

    Raises:
      RunFolderError: a folder does not contain a run.
    """
    return reports.write_report(folders, out)
