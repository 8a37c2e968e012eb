"""Hypotheses: sums of results that are expected to be positive."""

import dataclasses
from typing import Literal

Metric = Literal[
    "accuracy", "agreement", "kl", "train_loss", "nll", "calibration_error"
]


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """The expectation that a sum of results exceeds a threshold, seed by seed."""

    claim: str
    """The hypothesis in words."""
    terms: tuple[tuple[float, str, int], ...]
    """(factor, variant, index of the duration; -1 is the longest)."""
    metric: Metric = "accuracy"
    """train_loss is the mean over the last tenth of the training. All others are of the
    test split: kl to the teacher and nll of the labels in nats, and the expected
    calibration error of 15 bins. nll and calibration_error are in the report where a
    hypothesis has them."""
    paper: str = ""
    """The paper's result, in its own numbers."""
    threshold: float = 0.0
    """In the metric's own unit, such as an accuracy of 0.1 by chance."""


def above(
    claim: str,
    larger: str,
    smaller: str,
    *,
    at: int = -1,
    metric: Metric = "accuracy",
    paper: str = "",
) -> Hypothesis:
    """Hypothesis that one variant has the larger value at one duration."""
    terms = ((1.0, larger, at), (-1.0, smaller, at))
    return Hypothesis(claim, terms, metric, paper)


def widening(
    claim: str,
    larger: str,
    smaller: str,
    *,
    metric: Metric = "accuracy",
    paper: str = "",
) -> Hypothesis:
    """Hypothesis that a variant's lead grows from the shortest duration to the
    longest."""
    last = above(claim, larger, smaller, metric=metric, paper=paper)
    first = tuple((-factor, name, 0) for factor, name, _ in last.terms)
    return dataclasses.replace(last, terms=last.terms + first)
