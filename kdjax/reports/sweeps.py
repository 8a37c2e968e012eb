"""The report of a sweep: what came out beside what was expected, seed by seed."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdjax.config import Expectation, Experiment, load_experiment
from kdjax.core import runlog
from kdjax.reports.sweep_figures import write_figures
from kdjax.reports.sweep_results import (
    METRICS,
    Metric,
    Runs,
    choose,
    finished_runs,
    mean_and_error,
    read_sweep,
    validated,
    values,
)
from kdjax.reports.tables import ABSENT, escape, provenance

# Below this the seeds decide; the test is two-sided.
LEVEL = 0.05


_EXPLAINED = (
    "Numbers are of the test split, on which nothing was chosen: mean ± standard error "
    "over the seeds. Seeds are paired: a difference is taken seed by seed, and the "
    f"verdict is a two-sided t-test of its mean at p < {LEVEL}: `undecided` where the "
    "seeds do not tell, `reversed` where they tell the opposite; p is of each claim "
    "alone, not corrected for their number. Training loss is the mean over the last "
    "tenth of a run, on its own views."
)


class Verdict(NamedTuple):
    """What became of an expectation.

    mean: of the sum less `than` over the seeds, in the metric's own unit.
    error: its standard error; NaN with one seed.
    p: that the mean is 0, by a two-sided paired t-test; NaN where all seeds say the
        same or there is one, which no such test can judge.
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
    """Write `report.md` and its figures of a sweep into its folder: the Markdown.

    Runs that are not finished are shown as such and enter no verdict.

    Raises:
        ConfigError: the experiment's file is gone, or is no experiment any more.
        RunFolderError: the folder is no sweep's, or cannot be written.
    """
    root = pathlib.Path(folder)
    about = read_sweep(root)
    experiment, scale = load_experiment(about["experiment"]), about["scale"]
    finished = finished_runs(experiment, root, scale)
    runs = choose(experiment, finished, scale)
    parts = [
        f"# {experiment.name}, {scale} scale",
        experiment.claim,
        provenance(list(finished.values())),
        f"{_told(experiment, finished, scale)} {_EXPLAINED}",
        verdict_table(experiment, runs, scale) if experiment.expected else "",
    ]
    for name, metric in METRICS.items():
        if any(values(run, name) for run in runs.values()):
            table = results_by_duration(experiment, runs, scale, name)
            parts.append(f"## {metric.title} ({metric.unit})\n\n{table}")
    for name in experiment.choices:
        table = choice_table(experiment, name, finished, scale)
        parts.append(f"## Choice of {name} (validation accuracy, %)\n\n{table}")
    figures = write_figures(experiment, runs, scale, root)
    parts += [f"![{caption}]({name})" for name, caption in figures.items()]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    runlog.write_bytes(root / "report.md", text.encode())
    return text


def _told(experiment: Experiment, finished: Runs, scale: str) -> str:
    """How far a sweep is, and what it lacks."""
    asked = [(v, t) for v in experiment.variants for t in experiment.times(scale)]
    lacking = [
        f"{name} x{times}" for name, times in asked if (name, times) not in finished
    ]
    text = f"{len(finished)} of {len(asked)} runs are finished."
    if not lacking or not finished:
        return text
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    text = (
        f"{text} Not finished: {', '.join(lacking[:10])}{more}. Claims about the "
        "longest, and those before it, are judged at the longest that are there, and "
        "say at which; two of them may then be one comparison."
    )
    chosen = "What is chosen from several is chosen from those that are finished."
    return f"{text} {chosen}" if experiment.choices else text


def judged_at(
    expected: Expectation, runs: Runs, durations: Sequence[int]
) -> tuple[int, ...]:
    """The duration at which each term is judged; none where it cannot be yet.

    What counts from the end counts from the longest that all its variants have
    finished, but not down to the shortest of all, which says something else.
    """
    variants = [variant for _, variant, _ in expected.terms]
    there = [t for t in durations if all((v, t) in runs for v in variants)]
    found, asked = [], []
    for _, variant, at in expected.terms:
        times = there if at < 0 else durations
        inside = -len(times) <= at < len(times)
        if not inside or (variant, times[at]) not in runs:
            return ()
        found.append(times[at])
        asked.append(durations[at])
    slid = durations[0] in [f for f, a in zip(found, asked, strict=True) if f != a]
    # Two durations must not have become one.
    same = len(set(found)) < len(set(asked))
    return () if slid or same else tuple(found)


def judge(expected: Expectation, runs: Runs, durations: Sequence[int]) -> Verdict:
    """Whether the sum of results is above `than` in a paired test over the seeds, at
    the durations of `judged_at`."""
    total = np.asarray(-expected.than)
    times = judged_at(expected, runs, durations)
    nothing = Verdict(0, math.nan, math.nan, math.nan)
    if not times:
        return nothing
    for (factor, variant, _), t in zip(expected.terms, times, strict=True):
        found = values(runs[variant, t], expected.metric)
        if not found:
            return nothing
        total = total + factor * np.asarray(found)
    if total.size < 2:
        return Verdict(total.size, float(total.mean()), math.nan, math.nan)
    error = float(np.std(total, ddof=1) / math.sqrt(total.size))
    # Up to rounding: accuracies are whole numbers of images.
    same = np.ptp(total) <= 1e-12 * (1 + np.abs(total).max())
    p = math.nan if same else float(np.asarray(stats.ttest_1samp(total, 0.0))[1])
    return Verdict(total.size, float(total.mean()), error, p)


def verdict_table(experiment: Experiment, runs: Runs, scale: str) -> str:
    """A Markdown table: claim, the paper's numbers, ours, verdict."""
    heads = ["claim", "paper", "ours", "seeds", "p", "verdict"]
    rows = [heads, ["---"] * 2 + ["---:"] * 3 + ["---"]]
    durations = experiment.times(scale)
    for expected in experiment.expected:
        found = judge(expected, runs, durations)
        metric = METRICS[expected.metric]
        ours, p = ABSENT, ABSENT
        if found.seeds:
            ours = _plus_minus(found.mean, found.error, metric, sign="+")
            ours = f"{ours} {metric.unit.replace('%', 'points')}"
        if math.isfinite(found.p):
            p = f"{found.p:.2g}"
        paper = expected.paper or ABSENT
        claim = expected.claim + _other_times(expected, runs, durations)
        rows.append([claim, paper, ours, str(found.seeds), p, found.word])
    return _lines(rows)


def _other_times(expected: Expectation, runs: Runs, durations: Sequence[int]) -> str:
    """At what it is judged, where that is not what it says."""
    found = judged_at(expected, runs, durations)
    asked = tuple(durations[at] for *_, at in expected.terms) if found else ()
    if found == asked:
        return ""
    return f" (so far: {', '.join(f'x{t}' for t in sorted(set(found)))})"


def results_by_duration(
    experiment: Experiment, runs: Runs, scale: str, metric: str
) -> str:
    """A Markdown table: a row a variant, a column a duration."""
    rows = _heads(experiment, scale)
    for variant in experiment.shown:
        cells = []
        for t in experiment.times(scale):
            run = runs.get((variant, t))
            found = values(run, metric) if run else []
            mean, error = mean_and_error(found)
            how = METRICS[metric]
            cells.append(_plus_minus(mean, error, how) if found else ABSENT)
        rows.append([variant, *cells])
    return _lines(rows)


def choice_table(experiment: Experiment, name: str, finished: Runs, scale: str) -> str:
    """A Markdown table of what was chosen from: validation accuracy, the best bold."""
    chosen = choose(experiment, finished, scale)
    rows = _heads(experiment, scale)
    for variant in experiment.choices[name]:
        cells = []
        for t in experiment.times(scale):
            run = finished.get((variant, t))
            if run is None:
                cells.append(ABSENT)
                continue
            mean, error = mean_and_error(validated(run))
            text = _plus_minus(mean, error, METRICS["accuracy"])
            cells.append(f"**{text}**" if chosen[name, t] is run else text)
        rows.append([variant, *cells])
    return _lines(rows)


def _heads(experiment: Experiment, scale: str) -> list[list[str]]:
    times = experiment.times(scale)
    steps = {experiment.run(v, scale, 1).steps for v in experiment.variants}
    said = " ({:,} updates)" if len(steps) == 1 else ""
    heads = [f"x{t}{said.format(t * max(steps))}" for t in times]
    return [["variant", *heads], ["---", *["---:"] * len(times)]]


def _plus_minus(mean: float, error: float, metric: Metric, sign: str = "") -> str:
    text = f"{metric.scale * mean:{sign}.{metric.digits}f}"
    if not math.isfinite(error):
        return text
    return f"{text} ± {metric.scale * error:.{metric.digits}f}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(escape, row))} |" for row in rows)
