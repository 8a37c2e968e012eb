"""Features as they are: hints, attention maps, overhaul, and singular vectors."""

import dataclasses
import functools

from experiments.methods import common
from kdjax.config import HARD, Run, Term
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
STAGES = ("stage1", "stage2", "stage3")


def with_labels(scale: str, terms: dict[str, Term]) -> Run:
    """Terms beside the cross-entropy of the labels."""
    return dataclasses.replace(common.base(scale), terms={"hard": HARD, **terms})


def hint(scale: str) -> Run:
    """FitNets in one stage, by RepDistiller: the middle stage, weight 100."""
    loss = Term(
        "hint_l2",
        weight=100.0,
        student="stage2",
        teacher="stage2",
        projector="regressor",
    )
    return with_labels(scale, {"hint": loss})


def attention(scale: str) -> Run:
    """Attention transfer of all stages, weight 1000 for each."""
    loss = Term(
        "attention_transfer",
        weight=1000.0,
        student=STAGES,
        teacher=STAGES,
        pair="depth",
    )
    return with_labels(scale, {"attention": loss})


def singular(scale: str) -> Run:
    """KD-SVD of two stages, weight 1 by RepDistiller, which has all consecutive pairs.

    One pair alone: three of them, for several seeds, have stalled on two CPU cores.
    """
    taps = ("stage1", "stage2")
    loss = Term("kdsvd", student=taps, teacher=taps, projector=True)
    return with_labels(scale, {"svd": loss})


METHODS = {
    "hint": hint,
    "attention": attention,
    "overhaul": functools.partial(common.taught, name="ofd"),
    "kd-svd": singular,
}

EXPERIMENT = Experiment(
    claim=(
        "Matching feature maps, their attention or their singular vectors ends above "
        "labels alone (arXiv 1412.6550, 1612.03928, 1904.01866, 1807.06819)"
    ),
    variants={"labels": common.labels, "hinton": common.hinton, **METHODS},
    durations=common.DURATIONS,
    hypotheses=(
        *(above(f"{x} above labels", x, "labels", paper=NONE) for x in METHODS),
        above("overhaul above attention", "overhaul", "attention"),
        above("overhaul above the hint", "overhaul", "hint"),
    ),
)
