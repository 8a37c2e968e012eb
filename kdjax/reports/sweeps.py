"""The report of a sweep: what came out beside what was expected, seed by seed."""

import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from kdjax.config import Expectation, Experiment, load_experiment, run_folder
from kdjax.core import runlog
from kdjax.reports.collect import RunRecord, collect
from kdjax.reports.plots import COLOURS, MARKERS, log_steps, plain
from kdjax.reports.tables import ABSENT, escape, provenance

Runs = Mapping[tuple[str, int], RunRecord]
# Below this the seeds decide; the test is two-sided.
LEVEL = 0.05


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


_EXPLAINED = (
    "Numbers are of the test split, on which nothing was chosen: mean ± standard error "
    "over the seeds. Seeds are paired: a difference is taken seed by seed, and the "
    f"verdict is a two-sided t-test of its mean at p < {LEVEL}: `undecided` where the "
    "seeds do not tell, `reversed` where they tell the opposite. Training loss is the "
    "mean over the last tenth of a run, on its own views."
)


class Verdict(NamedTuple):
    """What became of an expectation.

    mean: of the sum over the seeds, in the metric's own unit.
    error: its standard error; NaN with one seed.
    p: that the mean is 0, by a two-sided paired t-test.
    """

    seeds: int
    mean: float
    error: float
    p: float

    @property
    def word(self) -> str:
        if not self.seeds:
            return "not run"
        if not self.p < LEVEL:
            return "undecided"
        return "holds" if self.mean > 0 else "reversed"


def write_sweep_report(folder: runlog.Path) -> str:
    """Write `report.md` and `results.png` of a sweep into its folder: the Markdown.

    Runs that are not finished are shown as such and enter no verdict.

    Raises:
        ConfigError: the experiment's file is gone, or is no experiment any more.
        RunFolderError: the folder is no sweep's, or cannot be written.
    """
    root = pathlib.Path(folder)
    about = runlog.read_json(root / "sweep.json")
    experiment, scale = load_experiment(about["experiment"]), about["scale"]
    runs = finished_runs(experiment, root, scale)
    figure = io.BytesIO()
    FigureCanvasAgg(_draw(experiment, runs, scale)).print_png(figure)
    runlog.write_bytes(root / "results.png", figure.getvalue())
    asked = len(experiment.variants) * len(experiment.times(scale))
    parts = [
        f"# {experiment.name}, {scale} scale",
        experiment.claim,
        provenance(list(runs.values())),
        f"{len(runs)} of {asked} runs are finished. {_EXPLAINED}",
        verdict_table(experiment, runs, scale),
    ]
    for name, metric in METRICS.items():
        if any(values(run, name) for run in runs.values()):
            table = results_by_duration(experiment, runs, scale, name)
            parts.append(f"## {metric.title} ({metric.unit})\n\n{table}")
    parts.append("![Results against the number of updates](results.png)")
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    runlog.write_bytes(root / "report.md", text.encode())
    return text


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
    lines = [line for line in run.metrics if line["kind"] == "train"]
    late = [x["loss"] for x in lines if x["step"] > 0.9 * run.config["steps"]]
    return np.mean(late, axis=0).tolist() if late else []


def judge(expected: Expectation, runs: Runs, durations: Sequence[int]) -> Verdict:
    """Whether the sum of results is above 0 in a paired test over the seeds."""
    total = np.zeros(())
    for factor, variant, at in expected.terms:
        inside = -len(durations) <= at < len(durations)
        run = runs.get((variant, durations[at])) if inside else None
        found = values(run, expected.metric) if run else []
        if not found:
            return Verdict(0, math.nan, math.nan, math.nan)
        total = total + factor * np.asarray(found)
    if total.size < 2:
        return Verdict(total.size, float(total.mean()), math.nan, math.nan)
    error = float(np.std(total, ddof=1) / math.sqrt(total.size))
    if error == 0:
        p = 1.0 if total.mean() == 0 else 0.0
    else:
        p = float(np.asarray(stats.ttest_1samp(total, 0.0))[1])
    return Verdict(total.size, float(total.mean()), error, p)


def verdict_table(experiment: Experiment, runs: Runs, scale: str) -> str:
    """A Markdown table: claim, the paper's numbers, ours, verdict."""
    heads = ["claim", "paper", "ours", "seeds", "p", "verdict"]
    rows = [heads, ["---"] * 2 + ["---:"] * 3 + ["---"]]
    for expected in experiment.expected:
        found = judge(expected, runs, experiment.times(scale))
        metric = METRICS[expected.metric]
        ours, p = ABSENT, ABSENT
        if found.seeds:
            ours = _plus_minus(found.mean, found.error, metric, sign="+")
            ours = f"{ours} {metric.unit.replace('%', 'points')}"
        if math.isfinite(found.p):
            p = f"{found.p:.1g}"
        paper = expected.paper or ABSENT
        rows.append([expected.claim, paper, ours, str(found.seeds), p, found.word])
    return _lines(rows)


def results_by_duration(
    experiment: Experiment, runs: Runs, scale: str, metric: str
) -> str:
    """A Markdown table: a row a variant, a column a duration."""
    times = experiment.times(scale)
    steps = {
        t: experiment.run(next(iter(experiment.variants)), scale, t).steps
        for t in times
    }
    rows = [["variant", *(f"x{t} ({steps[t]:,} updates)" for t in times)]]
    rows.append(["---", *["---:"] * len(times)])
    for variant in experiment.variants:
        cells = []
        for t in times:
            run = runs.get((variant, t))
            found = values(run, metric) if run else []
            mean, error = _mean_and_error(found)
            how = METRICS[metric]
            cells.append(_plus_minus(mean, error, how) if found else ABSENT)
        rows.append([variant, *cells])
    return _lines(rows)


def _mean_and_error(found: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error over the seeds; NaN where one value has no error."""
    if not found:
        return math.nan, math.nan
    count = len(found)
    error = np.std(found, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return float(np.mean(found)), float(error)


def _plus_minus(mean: float, error: float, metric: Metric, sign: str = "") -> str:
    text = f"{metric.scale * mean:{sign}.{metric.digits}f}"
    if not math.isfinite(error):
        return text
    return f"{text} ± {metric.scale * error:.{metric.digits}f}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(escape, row))} |" for row in rows)


def _draw(experiment: Experiment, runs: Runs, scale: str) -> Figure:
    shown = [m for m in METRICS if any(values(run, m) for run in runs.values())]
    shown = shown or ["accuracy"]
    figure = Figure(figsize=(4.2 * len(shown), 4.2), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.1)
    for metric, axis in zip(
        shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True
    ):
        about, steps = METRICS[metric], []
        for number, variant in enumerate(experiment.variants):
            found = {
                runs[variant, t].config["steps"]: values(runs[variant, t], metric)
                for t in experiment.times(scale)
                if (variant, t) in runs and values(runs[variant, t], metric)
            }
            pairs = [_mean_and_error(v) for v in found.values()]
            axis.errorbar(
                list(found),
                [about.scale * mean for mean, _ in pairs],
                [about.scale * (0.0 if math.isnan(e) else e) for _, e in pairs],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                linewidth=1.5,
                label=plain(variant),
            )
            steps += list(found)
        axis.set_title(about.title, fontsize=11)
        axis.set_xlabel("updates (log scale)")
        axis.set_ylabel(about.unit)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.9", linewidth=0.8)
        log_steps(axis, steps)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure
