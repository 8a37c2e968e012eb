"""Stages that several methods share, on the runs of `experiments.methods.common`.

Every function takes a scale: tiny, digits or cifar.
"""

import dataclasses
import pathlib
from typing import Any

from experiments.methods import common as methods
from kdjax.config import HARD, ModelConfig, Run, Term, TrainFirst
from kdjax.jobs.distilling import teacher_run

# The place of each tap of a ResNet among its stages.
_TAPS = ("stem", "stage1", "stage2", "stage3")


def student(scale: str, start: str = "") -> ModelConfig:
    """The student's network.

    start: `stage:NAME`, from whose network it starts; empty: random initialization.
    """
    return dataclasses.replace(methods.base(scale).model, weights=start)


def sized(scale: str, size: int) -> ModelConfig:
    """A ResNet by size: its width on the digits, its depth on CIFAR."""
    if scale == "cifar":
        return dataclasses.replace(student(scale), name=f"resnet{size}")
    return dataclasses.replace(student(scale), width=size)


def deep(scale: str) -> ModelConfig:
    """A network of the student's width, and deeper: for flows between its layers."""
    if scale == "cifar":
        return sized(scale, 56)
    return dataclasses.replace(student(scale), depth=26)


def named(scale: str, name: str) -> ModelConfig:
    """A network by its name alone, at the scale's resolution."""
    if scale == "cifar":
        return dataclasses.replace(student(scale), name=name)
    return ModelConfig(name, resolution=student(scale).resolution)


def teacher(scale: str, model: ModelConfig | None = None, **changes: Any) -> Run:
    """A teacher as a stage, trained on all its labels.

    model: by default the network of the scale's teacher.
    changes: fields of `Run` to replace.
    """
    base = methods.base(scale)
    assert isinstance(base.teacher, TrainFirst)
    first = dataclasses.replace(base.teacher, model=model or methods.large(scale))
    # A stage has its own folder; this one is replaced.
    run = teacher_run(dataclasses.replace(base, teacher=first), pathlib.Path("teacher"))
    return dataclasses.replace(run, **changes)


def on_labels(scale: str, **changes: Any) -> Run:
    """A student on labels alone. changes: fields of `Run` to replace."""
    return dataclasses.replace(methods.labels(scale), **changes)


def taught(scale: str, **changes: Any) -> Run:
    """A student with a teacher. changes: fields of `Run` to replace."""
    return dataclasses.replace(methods.base(scale), **changes)


def soft_and_hard(soft: float, hard: float, temperature: float) -> dict[str, Term]:
    """hard * CE(y, p) + soft * T^2 KL(p_teacher || p)."""
    return {
        "soft": Term("softmax_kl", weight=soft, temperature=temperature),
        "hard": dataclasses.replace(HARD, weight=hard),
    }


def layers_to(scale: str, tap: str) -> tuple[str, ...]:
    """Patterns of the student's parameters up to a tap, for `Optim.parameters`.

    tap: "stem" or "stage1" to "stage3".
    """
    depth, norm = (20, "BatchNorm") if scale == "cifar" else (8, "GroupNorm")
    blocks = (depth - 2) // 6 * _TAPS.index(tap)
    return (
        "Conv_0/*",
        f"{norm}_0/*",
        *(f"BasicBlock_{block}/*" for block in range(blocks)),
    )
