"""A critic between student and teacher: on logits, on features, on every tap."""

import functools

from experiments.methods import common
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
METHODS = {
    "critic on logits": functools.partial(common.taught, name="critic_on_logits"),
    "critic on features": functools.partial(
        common.taught, name="critic_on_features", label_weight=1.0
    ),
    "meal": functools.partial(common.taught, name="meal"),
}

EXPERIMENT = Experiment(
    claim=(
        "A student that a critic cannot tell from its teacher ends above labels alone "
        "(arXiv 1709.00513, 1803.10750, 1812.02425)"
    ),
    variants={"labels": common.labels, "hinton": common.hinton, **METHODS},
    durations=common.DURATIONS,
    hypotheses=(
        *(above(f"{x} above labels", x, "labels", paper=NONE) for x in METHODS),
        *(above(f"{x} above Hinton's loss", x, "hinton") for x in METHODS),
    ),
)
