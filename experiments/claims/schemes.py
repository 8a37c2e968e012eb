"""Offline, online and self-distillation against the student's size."""

import dataclasses
import functools

from experiments.claims import common
from experiments.methods import common as methods
from experiments.stages.born_again import born_again
from kdjax.config import Run, Stages
from kdjax.experiments import Experiment, Hypothesis, above

WIDTHS = (1, 2, 4)


def labels(scale: str, width: int) -> Run:
    """The student alone."""
    return common.of_width(common.labels(scale), width)


def offline(scale: str, width: int) -> Run:
    """Under a teacher of width 8 that is trained first."""
    return common.of_width(common.hinton(scale), width)


def online(scale: str, width: int) -> Run:
    """Beside a network of width 8 that learns from labels."""
    return common.of_width(methods.beside_large(scale, "online"), width)


def own(scale: str, width: int) -> Stages:
    """Under a network of its own size that is trained first on the same images."""
    stages = born_again(scale=scale, generations=2)
    runs = {name: common.of_width(run, width) for name, run in stages.runs.items()}
    return dataclasses.replace(stages, runs=runs)


SCHEMES = {"labels": labels, "offline": offline, "online": online, "self": own}


def lead(claim: str, scheme: str) -> Hypothesis:
    """Hypothesis that the lead over labels is larger for the smallest student."""
    small, large = WIDTHS[0], WIDTHS[-1]
    pairs = ((1, scheme, small), (-1, "labels", small))
    pairs += ((-1, scheme, large), (1, "labels", large))
    return Hypothesis(claim, tuple((f, f"{name} {w}", -1) for f, name, w in pairs))


EXPERIMENT = Experiment(
    claim=(
        "Offline distillation helps a small student most; online and "
        "self-distillation help too, by less"
    ),
    variants={
        f"{name} {width}": functools.partial(function, width=width)
        for width in WIDTHS
        for name, function in SCHEMES.items()
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(
            above(f"width {w}: {name} above labels", f"{name} {w}", f"labels {w}")
            for w in WIDTHS
            for name in ("offline", "online", "self")
        ),
        *(
            above(f"width {w}: offline above {name}", f"offline {w}", f"{name} {w}")
            for w in WIDTHS
            for name in ("online", "self")
        ),
        lead("offline helps width 1 more than width 4", "offline"),
        lead("online helps width 1 more than width 4", "online"),
    ),
)
