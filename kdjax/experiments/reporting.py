"""The report of a sweep: results, and verdicts on the hypotheses, seed by seed."""

import math
import pathlib
from collections.abc import Sequence

from kdjax.core import runlog
from kdjax.experiments.experiment import Experiment
from kdjax.experiments.hypothesis import Hypothesis
from kdjax.experiments.judging import LEVEL, judge, judged_at
from kdjax.experiments.records import Runs, finished_runs, is_packed, pack, read_sweep
from kdjax.experiments.results import (
    METRICS,
    Shown,
    mean_and_error,
    reported_metrics,
    select,
    validated,
    values,
)
from kdjax.reports.tables import ABSENT, escape, provenance

_EXPLAINED = (
    "Numbers are of the test split, on which nothing was chosen: mean ± standard error "
    "over the seeds. Seeds are paired: a difference is taken seed by seed, and the "
    f"verdict is a two-sided t-test of its mean at p < {LEVEL}: `undecided` where the "
    "seeds do not tell, `reversed` where they tell the opposite; p is of each claim "
    "alone, not corrected for their number. Training loss is the mean over the last "
    "tenth of a run, on its own views."
)


def write_sweep_report(
    folder: runlog.Path, experiment: Experiment, out: runlog.Path = ""
) -> str:
    """Write `report.md` of a sweep and its figures: the Markdown.

    They go to `out`, by default the sweep's folder, with `records.jsonl`, which makes
    the same report without the runs. Unfinished runs are listed and enter no verdict.

    Raises:
      RunFolderError: the folder is not a sweep's, or cannot be written.
    """
    root = pathlib.Path(folder)
    target = pathlib.Path(out or folder)
    runlog.make_writable(target)
    scale = read_sweep(root)["scale"]
    finished = finished_runs(experiment, root, scale)
    runs = select(experiment, finished, scale)
    parts = [
        f"# {experiment.name}, {scale} scale",
        experiment.claim,
        provenance(list(finished.values())),
        f"{_progress(experiment, finished, scale)} {_EXPLAINED}",
        verdict_table(experiment, runs, scale) if experiment.hypotheses else "",
    ]
    for name, metric in reported_metrics(experiment).items():
        if any(values(run, name) for run in runs.values()):
            table = results_by_duration(experiment, runs, scale, name)
            parts.append(f"## {metric.title} ({metric.unit})\n\n{table}")
    for name in experiment.select_on_validation:
        table = selection_table(experiment, name, finished, scale)
        parts.append(f"## Choice of {name} (validation accuracy, %)\n\n{table}")
    # Every command imports this module, and matplotlib takes as long as JAX to import.
    from kdjax.experiments.figures import write_figures

    captions = write_figures(experiment, runs, finished, scale, target)
    parts += [f"![{caption}]({name})" for name, caption in captions.items()]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    runlog.write_bytes(target / "report.md", text.encode())
    if not is_packed(root):
        pack(root, finished.values())
    return text


def _progress(experiment: Experiment, finished: Runs, scale: str) -> str:
    """The number of finished runs, and the names of the others."""
    planned = [(v, t) for v in experiment.variants for t in experiment.times(scale)]
    lacking = [
        f"{name} x{times}" for name, times in planned if (name, times) not in finished
    ]
    text = f"{len(finished)} of {len(planned)} runs are finished."
    if not lacking or not finished:
        return text
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    text = (
        f"{text} Not finished: {', '.join(lacking[:10])}{more}. Claims about the "
        "longest, and those before it, are judged at the longest that are there, and "
        "say at which; two of them may then be one comparison."
    )
    selected = "What is chosen from several is chosen from those that are finished."
    return f"{text} {selected}" if experiment.select_on_validation else text


def verdict_table(experiment: Experiment, runs: Runs, scale: str) -> str:
    """A Markdown table: claim, the paper's numbers, ours, verdict."""
    heads = ["claim", "paper", "ours", "seeds", "p", "verdict"]
    rows = [heads, ["---"] * 2 + ["---:"] * 3 + ["---"]]
    durations = experiment.times(scale)
    for hypothesis in experiment.hypotheses:
        verdict = judge(hypothesis, runs, durations)
        metric = METRICS[hypothesis.metric]
        ours, p = ABSENT, ABSENT
        if verdict.seeds:
            ours = _plus_minus(verdict.mean, verdict.error, metric, sign="+")
            ours = f"{ours} {metric.unit.replace('%', 'points')}"
        if math.isfinite(verdict.p):
            p = f"{verdict.p:.2g}"
        paper = hypothesis.paper or ABSENT
        claim = hypothesis.claim + _so_far(hypothesis, runs, durations)
        rows.append([claim, paper, ours, str(verdict.seeds), p, verdict.word])
    return _lines(rows)


def _so_far(hypothesis: Hypothesis, runs: Runs, durations: Sequence[int]) -> str:
    """The durations of the verdict, where they differ from the hypothesis's own."""
    judged = judged_at(hypothesis, runs, durations)
    own = tuple(durations[at] for *_, at in hypothesis.terms) if judged else ()
    if judged == own:
        return ""
    return f" (so far: {', '.join(f'x{t}' for t in sorted(set(judged)))})"


def results_by_duration(
    experiment: Experiment, runs: Runs, scale: str, metric: str
) -> str:
    """A Markdown table: a row a variant, a column a duration."""
    rows = _heads(experiment, scale)
    for variant in experiment.reported:
        cells = []
        for t in experiment.times(scale):
            run = runs.get((variant, t))
            results = values(run, metric) if run else []
            mean, error = mean_and_error(results)
            text = _plus_minus(mean, error, METRICS[metric])
            cells.append(text if results else ABSENT)
        rows.append([variant, *cells])
    return _lines(rows)


def selection_table(
    experiment: Experiment, name: str, finished: Runs, scale: str
) -> str:
    """A Markdown table of a group's validation accuracies, the best ones bold."""
    selected = select(experiment, finished, scale)
    rows = _heads(experiment, scale)
    for variant in experiment.select_on_validation[name]:
        cells = []
        for t in experiment.times(scale):
            run = finished.get((variant, t))
            if run is None:
                cells.append(ABSENT)
                continue
            mean, error = mean_and_error(validated(run))
            text = _plus_minus(mean, error, METRICS["accuracy"])
            cells.append(f"**{text}**" if selected[name, t] is run else text)
        rows.append([variant, *cells])
    return _lines(rows)


def _heads(experiment: Experiment, scale: str) -> list[list[str]]:
    times = experiment.times(scale)
    steps = {experiment.run(v, scale, 1).steps for v in experiment.variants}
    common = " ({:,} steps)" if len(steps) == 1 else ""
    heads = [f"x{t}{common.format(t * max(steps))}" for t in times]
    return [["variant", *heads], ["---", *["---:"] * len(times)]]


def _plus_minus(mean: float, error: float, metric: Shown, sign: str = "") -> str:
    text = f"{metric.scale * mean:{sign}.{metric.digits}f}"
    if not math.isfinite(error):
        return text
    return f"{text} ± {metric.scale * error:.{metric.digits}f}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(escape, row))} |" for row in rows)
