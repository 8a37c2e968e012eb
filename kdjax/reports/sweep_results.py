"""What a sweep's finished runs say: results by variant and duration, and choices."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.config import Experiment, run_folder
from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, collect, curve

Runs = Mapping[tuple[str, int], RunRecord]


class Metric(NamedTuple):
    """How a metric is written: `scale` times the number, in a unit."""

    title: str
    unit: str
    scale: float
    digits: int


METRICS = {
    "accuracy": Metric("Test accuracy", "%", 100, 2),
    "agreement": Metric("Agreement with the teacher", "%", 100, 2),
    "kl": Metric("Held-out KL", "nats", 1, 4),
    "train_loss": Metric("Training loss", "nats", 1, 4),
}


def read_sweep(root: runlog.Path) -> dict[str, Any]:
    """What a sweep is of: the file of its experiment, its scale and its seeds.

    Raises:
        RunFolderError: the folder is no sweep's.
    """
    file = pathlib.Path(root) / "sweep.json"
    about = runlog.read_json(file)
    kinds = {"experiment": str, "scale": str, "seeds": int, "folder": str}
    for name, kind in kinds.items():
        value = about.get(name, str(root) if name == "folder" else None)
        if type(value) is not kind:
            text = f"{file}: {name}: expected {kind.__name__}, got {value!r:.80}"
            raise runlog.RunFolderError(text)
    return about


def finished_runs(
    experiment: Experiment, root: pathlib.Path, scale: str
) -> dict[tuple[str, int], RunRecord]:
    """The finished runs of a sweep, by variant and duration."""
    found = {}
    for variant in experiment.variants:
        for times in experiment.times(scale):
            path = root / run_folder(variant, times)
            if runlog.is_finished(path):
                found[variant, times] = collect([path])[0]
    return found


def values(run: RunRecord, metric: str) -> list[float]:
    """A metric of a finished run, one value a seed; empty where it was not measured."""
    if metric != "train_loss":
        return (run.summary or {}).get("test", {}).get(metric, [])
    late = [v for step, v in losses(run).items() if step > 0.9 * run.config["steps"]]
    return np.mean(late, axis=0).tolist() if late else []


def losses(run: RunRecord) -> dict[int, list[float]]:
    """The training loss by step, one value a seed."""
    lines = [line for line in run.metrics if line["kind"] == "train"]
    return {line["step"]: line["loss"] for line in lines}


def choose(experiment: Experiment, runs: Runs, scale: str) -> Runs:
    """The runs whose results are shown: of variants to choose from only the one chosen.

    Chosen is, of those that are finished and at each duration anew, the highest
    accuracy on the validation split at the end of the training, mean over the seeds.
    """
    chosen = {key: run for key, run in runs.items() if key[0] in experiment.shown}
    for name, variants in experiment.choices.items():
        for times in experiment.times(scale):
            found = [runs[v, times] for v in variants if (v, times) in runs]
            if found:
                chosen[name, times] = max(found, key=lambda r: np.mean(validated(r)))
    return chosen


def validated(run: RunRecord) -> list[float]:
    """The last accuracy on the validation split, one value a seed."""
    found = list(curve(run, "accuracy").values())
    if not found:
        text = f"{run.path}: metrics.jsonl: expected accuracies on validation, got none"
        raise runlog.RunFolderError(text)
    return found[-1]


def epochs(run: RunRecord) -> float | None:
    """How many passes over its images an update of a run is; None if unknown."""
    examples = (run.summary or {}).get("examples")
    return run.config["batch"] / examples if examples else None


def mean_and_error(found: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error over the seeds; NaN where one value has no error."""
    if not found:
        return math.nan, math.nan
    count = len(found)
    error = np.std(found, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return float(np.mean(found)), float(error)
