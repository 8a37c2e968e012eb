"""Features, contrast and gradients of a teacher: VID, CRD, OFD, IRG, Jacobians."""

import functools

from experiments.methods import common
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
METHODS = {
    "review": functools.partial(common.taught, name="review_kd"),
    "jacobian": functools.partial(common.taught, name="jacobian_matching"),
    "irg": functools.partial(common.taught, name="irg"),
    "ofd": functools.partial(common.taught, name="ofd"),
}
# The weight of these is chosen on validation.
CHOSEN = {
    "vid": common.weights("vid", (0.1, 1.0, 10.0)),
    "crd": common.weights("crd", (0.1, 0.8, 3.0), negatives=128),
    "gradient": common.weights("attention_transfer_gradient", (1.0, 10.0, 100.0)),
}
NAMES = (*METHODS, *CHOSEN)

EXPERIMENT = Experiment(
    claim=(
        "Matching features or input gradients of a teacher ends above labels alone "
        "(arXiv 1904.05835, 1910.10699, 2104.09044, 1803.00443, 1612.03928, "
        "1904.01866, CVPR 2019)"
    ),
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        **METHODS,
        **common.variants_of(CHOSEN),
    },
    select_on_validation=common.groups_of(CHOSEN),
    durations=common.DURATIONS,
    hypotheses=(
        above("Hinton's loss above labels", "hinton", "labels", paper=NONE),
        *(above(f"{x} above labels", x, "labels", paper=NONE) for x in NAMES),
        *(above(f"{x} above Hinton's loss", x, "hinton") for x in NAMES),
    ),
)
