"""Features, contrast and gradients of a teacher: VID, CRD, attention, Jacobians."""

import functools

from experiments.methods import common
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
METHODS = {
    "vid": functools.partial(common.taught, name="vid"),
    "crd": functools.partial(common.taught, name="crd", negatives=128),
    "review": functools.partial(common.taught, name="review_kd"),
    "jacobian": functools.partial(common.taught, name="jacobian_matching"),
    "gradient": functools.partial(common.taught, name="attention_transfer_gradient"),
}

EXPERIMENT = Experiment(
    claim=(
        "Matching features or input gradients of a teacher ends above labels alone "
        "(arXiv 1904.05835, 1910.10699, 2104.09044, 1803.00443, 1612.03928)"
    ),
    variants={"labels": common.labels, "hinton": common.hinton, **METHODS},
    durations=common.DURATIONS,
    hypotheses=(
        above("Hinton's loss above labels", "hinton", "labels", paper=NONE),
        *(above(f"{x} above labels", x, "labels", paper=NONE) for x in METHODS),
        *(above(f"{x} above Hinton's loss", x, "hinton") for x in ("vid", "crd")),
    ),
)
