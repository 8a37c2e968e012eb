"""Verdicts on hypotheses: paired t-tests over the seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdjax.experiments.hypothesis import Hypothesis
from kdjax.experiments.records import Runs
from kdjax.experiments.results import values

# The two-sided level of a verdict.
LEVEL = 0.05


class Verdict(NamedTuple):
    """The test of a hypothesis.

    mean: of the sum less the threshold over the seeds, in the metric's own unit.
    error: its standard error; NaN with one seed.
    p: of a mean of 0, by a two-sided paired t-test; NaN with one seed or where all
        seeds have the same sum, which no such test can judge.
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


_NOT_RUN = Verdict(0, math.nan, math.nan, math.nan)


def judged_at(
    hypothesis: Hypothesis, runs: Runs, durations: Sequence[int]
) -> tuple[int, ...]:
    """The duration at which each term is judged; empty where a run is missing.

    An index from the end counts from the longest duration that all variants have
    finished. It never reaches the shortest duration of all, a different claim.
    """
    variants = [variant for _, variant, _ in hypothesis.terms]
    common = [t for t in durations if all((v, t) in runs for v in variants)]
    judged, declared = [], []
    for _, variant, at in hypothesis.terms:
        times = common if at < 0 else durations
        inside = -len(times) <= at < len(times)
        if not inside or (variant, times[at]) not in runs:
            return ()
        judged.append(times[at])
        declared.append(durations[at])
    pairs = zip(judged, declared, strict=True)
    slid = durations[0] in [time for time, other in pairs if time != other]
    # Two durations must not have become one.
    merged = len(set(judged)) < len(set(declared))
    return () if slid or merged else tuple(judged)


def judge(hypothesis: Hypothesis, runs: Runs, durations: Sequence[int]) -> Verdict:
    """Paired t-test that the sum of results exceeds the threshold, at the durations of
    `judged_at`."""
    total = np.asarray(-hypothesis.threshold)
    times = judged_at(hypothesis, runs, durations)
    if not times:
        return _NOT_RUN
    for (factor, variant, _), t in zip(hypothesis.terms, times, strict=True):
        results = values(runs[variant, t], hypothesis.metric)
        if not results:
            return _NOT_RUN
        total = total + factor * np.asarray(results)
    if total.size < 2:
        return Verdict(total.size, float(total.mean()), math.nan, math.nan)
    error = float(np.std(total, ddof=1) / math.sqrt(total.size))
    # Up to rounding: accuracies are whole numbers of images.
    same = np.ptp(total) <= 1e-12 * (1 + np.abs(total).max())
    p = math.nan if same else float(np.asarray(stats.ttest_1samp(total, 0.0))[1])
    return Verdict(total.size, float(total.mean()), error, p)
