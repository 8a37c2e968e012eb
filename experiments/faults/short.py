"""Short trainings for experiments with faults: seconds each, many checkpoints."""

import dataclasses
from typing import Any

from experiments.stages import common
from kdjax.config import (
    Custom,
    FromRun,
    Optim,
    Run,
    Stages,
    Term,
    TrainFirst,
    labels_only,
)
from kdjax.experiments import Experiment
from kdjax.presets import digits

OPTIM = Optim(warmup=5)


def stages() -> Stages:
    """A teacher, a hint to a part of the student, and two students that learn together.

    The second stage has a projector, and moves some parameters only.
    """
    base = _base(seeds=1)
    teacher = labels_only(base, workdir="teacher", teacher=None)
    hint = Term(
        "hint_l2",
        student="stage2",
        teacher="stage2",
        projector=True,
        options={"variant": "fitnets"},
    )
    below = dataclasses.replace(OPTIM, parameters=common.layers_to("digits", "stage2"))
    start = dataclasses.replace(base.model, weights="stage:hint")
    peers = Custom("mutual", options={"peers": 2})
    return Stages(
        {
            "teacher": teacher,
            "hint": dataclasses.replace(
                base, teacher=FromRun("stage:teacher"), terms={"h": hint}, optim=below
            ),
            "peers": dataclasses.replace(
                labels_only(base, workdir="peers", teacher=None),
                **{"model": start, "strategy": peers},
            ),
        },
        "runs/short-stages",
    )


def _base(**changes: Any) -> Run:
    return dataclasses.replace(
        digits(steps=30, optim=OPTIM, baselines=(), **changes),
        log_every=5,
        evaluate_every=15,
        checkpoint_every=5,
    )


def _labels(scale: str) -> Run:
    return labels_only(_taught(scale), teacher=None)


def _taught(scale: str) -> Run:
    del scale
    base = _base()
    assert isinstance(base.teacher, TrainFirst)
    teacher = dataclasses.replace(base.teacher, steps=30, optim=OPTIM)
    return dataclasses.replace(base, teacher=teacher)


EXPERIMENT = Experiment(
    claim="Two short trainings under one teacher, for kills",
    variants={"labels": _labels, "taught": _taught},
    durations={"tiny": (1,)},
    hypotheses=(),
)
