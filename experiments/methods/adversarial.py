"""A critic between student and teacher: on logits, on features, on every tap."""

import dataclasses

from experiments.methods import common
from kdjax.config import Network, Run
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
# The weight of the critic, and the student's steps for one of the critic.
PAIRS = ((1.0, 1), (0.1, 1), (0.1, 4), (0.01, 4))
CHOSEN = {
    "critic on logits": {
        f"weight {weight:g}, {steps} to 1": common.method(
            "critic_on_logits", weight=weight, student_steps=steps
        )
        for weight, steps in PAIRS
    },
    "critic on features": {
        f"weight {weight:g}, {steps} to 1": common.method(
            "critic_on_features", weight=weight, student_steps=steps, label_weight=1.0
        )
        for weight, steps in PAIRS
    },
    "meal": {
        f"weight {weight:g}, labels {labels:g}": common.method(
            "meal", critic_weight=weight, label_weight=labels
        )
        for weight, labels in ((1.0, 0.0), (0.1, 0.0), (0.1, 1.0))
    },
}


def kdgan(scale: str) -> Run:
    """A student, the teacher's network and a critic of its size."""
    run = common.beside_large(scale, "kdgan")
    critic = Network(common.large(scale))
    return dataclasses.replace(run, networks={**run.networks, "critic": critic})


def online(scale: str) -> Run:
    """A student, and a peer that is the teacher's network."""
    run = common.alone(scale, "feature_map_online")
    return dataclasses.replace(run, networks={"peer": Network(common.large(scale))})


WITHOUT_TEACHER = {"kdgan": kdgan, "feature maps online": online}
NAMES = (*CHOSEN, *WITHOUT_TEACHER)

EXPERIMENT = Experiment(
    claim=(
        "A student that a critic cannot tell from its teacher ends above labels alone "
        "(arXiv 1709.00513, 1803.10750, 1812.02425, 2002.01775; KDGAN, NeurIPS 2018)"
    ),
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        **common.variants_of(CHOSEN),
        **WITHOUT_TEACHER,
    },
    select_on_validation=common.groups_of(CHOSEN),
    durations=common.DURATIONS,
    hypotheses=(
        *(above(f"{x} above labels", x, "labels", paper=NONE) for x in NAMES),
        *(above(f"{x} above Hinton's loss", x, "hinton") for x in CHOSEN),
    ),
)
