"""Images of a generator beside real ones, or in place of them (arXiv 1812.02271)."""

import dataclasses
import functools

from experiments.methods import common
from experiments.stages import generated
from kdjax.config import Stages
from kdjax.experiments import Experiment, above

DURATIONS = {"tiny": (1,), "digits": (1,)}


def share(scale: str, name: str) -> Stages:
    """The stages of a teacher, a GAN, and one student."""
    stages = {"tiny": generated.tiny, "digits": generated.digits}[scale]()
    runs = {key: stages.runs[key] for key in ("teacher", "gan", name)}
    return dataclasses.replace(stages, runs=runs)


EXPERIMENT = Experiment(
    claim="Images of a generator help where there are few real ones",
    variants={
        "labels": common.labels,
        **{
            name: functools.partial(share, name=name)
            for name in ("real", "augment", "replace")
        },
    },
    durations=DURATIONS,
    hypotheses=(
        above("real and generated images above real ones", "augment", "real"),
        above("real and generated images above labels", "augment", "labels"),
        above("generated images alone above labels", "replace", "labels"),
    ),
)
