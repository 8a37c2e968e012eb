"""Variants that several claims share, on the runs of `experiments.methods.common`."""

import dataclasses

from experiments.methods import common
from kdjax.config import HARD, ModelConfig, Run, Scalar, Term, TrainFirst

base, hinton, labels = common.base, common.hinton, common.labels
DURATIONS = {"tiny": (1,), "digits": (1,)}
NONE = "the source has no number"


def soft(scale: str, loss: str, temperature: float | None, width: int = 8) -> Run:
    """The student on a loss of the teacher's logits alone.

    width: of the teacher; the student's is 2.
    """
    at = None if temperature is None else Scalar(temperature)
    terms = {"soft": Term(loss, temperature=at)}
    return dataclasses.replace(under(scale, width), terms=terms)


def under(scale: str, width: int) -> Run:
    """Hinton's loss under a teacher of a width, trained on all its labels."""
    run = hinton(scale)
    assert isinstance(run.teacher, TrainFirst)
    teacher = dataclasses.replace(run.teacher, model=resized(run.teacher.model, width))
    return dataclasses.replace(run, teacher=teacher)


def of_width(run: Run, width: int) -> Run:
    """The run with a student of another width."""
    return dataclasses.replace(run, model=resized(run.model, width))


def of_images(run: Run, count: int) -> Run:
    """The run on the first training images alone."""
    data = dataclasses.replace(run.data, train=f"train[:{count}]")
    return dataclasses.replace(run, data=data, batch=min(run.batch, count))


def weighted(scale: str, weight: float, temperature: float = 4.0) -> Run:
    """weight * T^2 KL(p_teacher || p) + (1 - weight) * CE(y, p)."""
    soft = Term(weight=Scalar(weight), temperature=Scalar(temperature))
    hard = dataclasses.replace(HARD, weight=Scalar(1 - weight))
    return dataclasses.replace(base(scale), terms={"soft": soft, "hard": hard})


def resized(model: ModelConfig, width: int) -> ModelConfig:
    """The same network of another width."""
    return dataclasses.replace(model, width=width)
