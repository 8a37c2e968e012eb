"""Results of finished runs by variant and duration, and selection on validation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax.core import runlog
from kdjax.experiments.experiment import Experiment
from kdjax.experiments.records import Runs
from kdjax.reports.collect import RunRecord, curve
from kdjax.reports.read_tables import Cell

# Means and standard errors by variant and duration, in the metric's printed unit.
Table = Mapping[str, Mapping[int, Cell]]


class Shown(NamedTuple):
    """The printed form of a metric: `scale` times the number, in a unit."""

    title: str
    unit: str
    scale: float
    digits: int


METRICS = {
    "accuracy": Shown("Test accuracy", "%", 100, 2),
    "agreement": Shown("Agreement with the teacher", "%", 100, 2),
    "kl": Shown("Held-out KL", "nats", 1, 4),
    "train_loss": Shown("Training loss", "nats", 1, 4),
    "nll": Shown("Held-out negative log-likelihood", "nats", 1, 4),
    "calibration_error": Shown("Calibration error", "%", 100, 2),
}
# These are in a report where a hypothesis has them.
_ON_REQUEST = ("nll", "calibration_error")


def reported_metrics(experiment: Experiment) -> dict[str, Shown]:
    """The metrics of an experiment's tables and figures."""
    wanted = {hypothesis.metric for hypothesis in experiment.hypotheses}
    return {
        name: shown
        for name, shown in METRICS.items()
        if name not in _ON_REQUEST or name in wanted
    }


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


def select(experiment: Experiment, runs: Runs, scale: str) -> Runs:
    """The runs whose test results are reported: one for each group.

    Of a group's finished runs, at each duration anew, the one with the highest final
    accuracy on the validation split, mean over the seeds.
    """
    selected = {key: run for key, run in runs.items() if key[0] in experiment.reported}
    for name, group in experiment.select_on_validation.items():
        for times in experiment.times(scale):
            members = [runs[v, times] for v in group if (v, times) in runs]
            if members:
                best = max(members, key=lambda run: np.mean(validated(run)))
                selected[name, times] = best
    return selected


def validated(run: RunRecord) -> list[float]:
    """The last accuracy on the validation split, one value a seed."""
    accuracies = list(curve(run, "accuracy").values())
    if not accuracies:
        text = f"{run.path}: metrics.jsonl: expected accuracies on validation, got none"
        raise runlog.RunFolderError(text)
    return accuracies[-1]


def mean_and_error(numbers: Sequence[float]) -> Cell:
    """Mean and standard error over the seeds; NaN where one value has no error."""
    if not numbers:
        return Cell(math.nan, math.nan)
    count = len(numbers)
    # A seed that diverged has no finite deviation.
    with np.errstate(invalid="ignore"):
        error = np.std(numbers, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return Cell(float(np.mean(numbers)), float(error))


def metric_table(runs: Runs, metric: str) -> Table:
    """A metric of runs, in its printed unit."""
    return _table(runs, lambda run: values(run, metric), METRICS[metric].scale)


def validation_table(runs: Runs) -> Table:
    """The last accuracy on the validation split of runs, in percent."""
    return _table(runs, validated, METRICS["accuracy"].scale)


def _table(
    runs: Runs, read: Callable[[RunRecord], list[float]], scale: float
) -> dict[str, dict[int, Cell]]:
    table: dict[str, dict[int, Cell]] = {}
    for (variant, times), run in sorted(runs.items(), key=lambda item: item[0][1]):
        mean, error = mean_and_error(read(run))
        if math.isfinite(mean):
            cell = Cell(scale * mean, scale * error)
            table.setdefault(variant, {})[times] = cell
    return table
