"""Whether a student that computes in bfloat16 is as good as one in float32."""

import dataclasses
import functools
from typing import Literal

from experiments.claims import common
from kdjax.config import Run, TrainFirst
from kdjax.experiments import Experiment, above


def in_bfloat16(scale: str, which: Literal["student", "teacher", "both"]) -> Run:
    """Hinton's loss, with bfloat16 as the arithmetic of one network or of both.

    The teacher is one that was trained in float32.
    """
    run = common.hinton(scale)
    if which != "teacher":
        compute = dataclasses.replace(run.compute, precision="bfloat16")
        run = dataclasses.replace(run, compute=compute)
    if which != "student":
        assert isinstance(run.teacher, TrainFirst)
        teacher = dataclasses.replace(run.teacher, precision="bfloat16")
        run = dataclasses.replace(run, teacher=teacher)
    return run


def averaged(scale: str, decay: float) -> Run:
    """Hinton's loss, and a moving average of the student as what is evaluated."""
    run = common.hinton(scale)
    return dataclasses.replace(run, optim=dataclasses.replace(run.optim, ema=decay))


EXPERIMENT = Experiment(
    claim=(
        "A student that computes in bfloat16, with parameters in float32, is as good "
        "as one in float32"
    ),
    variants={
        "float32": common.hinton,
        "student": functools.partial(in_bfloat16, which="student"),
        "teacher": functools.partial(in_bfloat16, which="teacher"),
        "both": functools.partial(in_bfloat16, which="both"),
        "average": functools.partial(averaged, decay=0.99),
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("float32 above a student in bfloat16", "float32", "student"),
        above("float32 above a teacher in bfloat16", "float32", "teacher"),
        above("float32 above both in bfloat16", "float32", "both"),
        above("an average of 0.99 above none", "average", "float32"),
    ),
)
