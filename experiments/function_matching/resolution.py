"""A student that sees fewer pixels than its teacher, of the same crop."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import base
from kdjax.config import Run
from kdjax.experiments import Experiment, Hypothesis, above

SIDES = {"tiny": 6, "digits": 6, "cifar": 24, "paper": 96}


def full(scale: str = "digits") -> Run:
    """The student sees what the teacher sees."""
    return base(scale)


def lower(scale: str = "digits") -> Run:
    """The same crop with three quarters of the pixels along each side."""
    run = base(scale)
    model = dataclasses.replace(run.model, resolution=SIDES[scale])
    return dataclasses.replace(run, model=model)


PAPER = "ImageNet, 160 of 224 pixels: -3.67 at 30 epochs, -1.82 at 9 600"

EXPERIMENT = Experiment(
    claim=(
        "A student at a lower resolution learns from the same crop; it is less "
        "accurate, and the gap shrinks with duration (arXiv 2106.05237, table 1)"
    ),
    variants={"full": full, "lower": lower},
    durations=common.DURATIONS,
    hypotheses=(
        above("10: full above lower, longest", "full", "lower", paper=PAPER),
        Hypothesis(
            "10: the gap shrinks from the shortest duration to the longest",
            (
                (1.0, "full", 0),
                (-1.0, "lower", 0),
                (-1.0, "full", -1),
                (1.0, "lower", -1),
            ),
            paper=PAPER,
        ),
        Hypothesis(
            "10: lower gains from training longer",
            ((1.0, "lower", -1), (-1.0, "lower", 0)),
            paper="70.22 at 30 epochs, 80.49 at 9 600",
        ),
    ),
)
