"""GroupNorm or BatchNorm in a student that sees mixed images."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import base
from kdjax.config import Run
from kdjax.experiments import Experiment, above


def group(scale: str = "digits") -> Run:
    """GroupNorm."""
    return _with(base(scale), "group")


def batch(scale: str = "digits") -> Run:
    """BatchNorm."""
    return _with(base(scale), "batch")


def _with(run: Run, norm: str) -> Run:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, norm=norm))


EXPERIMENT = Experiment(
    claim=(
        "Under function matching a student with GroupNorm ends no lower than one "
        "with BatchNorm (arXiv 2106.05237, MobileNetV3 in table 3)"
    ),
    variants={"group": group, "batch": batch},
    # BiT, the paper's own student, has no form with BatchNorm.
    durations={k: v for k, v in common.DURATIONS.items() if k != "paper"},
    hypotheses=(
        above(
            "14: GroupNorm above BatchNorm, longest",
            "group",
            "batch",
            paper="74.60 against 72.32 at 300 epochs, 76.31 against 73.51 at 1 200",
        ),
    ),
)
