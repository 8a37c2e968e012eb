"""Calibration and overfitting of a distilled student."""

from experiments.claims import common
from kdjax.experiments import Experiment, Hypothesis, above

EXPERIMENT = Experiment(
    claim=(
        "A distilled student is better calibrated than one on labels, and overfits less"
    ),
    variants={"labels": common.labels, "hinton": common.hinton},
    durations={"tiny": (1, 2), "digits": (1, 4)},
    hypotheses=(
        above(
            "the calibration error of labels is larger",
            "labels",
            "hinton",
            metric="calibration_error",
        ),
        above(
            "it is larger after the shortest run too",
            "labels",
            "hinton",
            at=0,
            metric="calibration_error",
        ),
        Hypothesis(
            "labels overfit: their held-out loss rises when trained longer",
            ((1, "labels", -1), (-1, "labels", 0)),
            "nll",
        ),
        Hypothesis(
            "it rises more than that of the distilled student",
            (
                (1, "labels", -1),
                (-1, "labels", 0),
                (-1, "hinton", -1),
                (1, "hinton", 0),
            ),
            "nll",
        ),
        above(
            "the held-out loss of labels is larger",
            "labels",
            "hinton",
            metric="nll",
        ),
    ),
)
