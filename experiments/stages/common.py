"""Stages that several methods share: a teacher, and students of the preset `digits`."""

import dataclasses
import pathlib
from typing import Any

from kdjax.config import HARD, ModelConfig, Run, Term
from kdjax.jobs.distilling import teacher_run
from kdjax.presets import digits, digits_labels, digits_teacher

STEPS = 2_560
# The place of each tap of `resnet` among its stages.
_TAPS = ("stem", "stage1", "stage2", "stage3")


def resnet(width: int = 2, depth: int = 8, start: str = "") -> ModelConfig:
    """The network of the preset, by width and depth.

    start: `stage:NAME`, from whose network it starts; empty: random initialization.
    """
    model = ModelConfig("resnet", depth=depth, width=width, resolution=8)
    return dataclasses.replace(model, weights=start)


def teacher(width: int = 8, depth: int = 8, **changes: Any) -> Run:
    """The teacher of the preset as a stage, trained on all labels.

    changes: fields of `Run` to replace.
    """
    first = digits_teacher(model=resnet(width, depth))
    # A stage has its own folder; this one is replaced.
    run = teacher_run(digits(teacher=first), pathlib.Path("teacher"))
    return dataclasses.replace(run, **changes)


def on_labels(steps: int = STEPS, **changes: Any) -> Run:
    """A student on labels alone. changes: fields of `Run` to replace."""
    return digits_labels(steps=steps, **changes)


def taught(steps: int = STEPS, **changes: Any) -> Run:
    """A student with a teacher, and no baselines. changes: fields of `Run`."""
    return digits(steps=steps, baselines=(), **changes)


def soft_and_hard(soft: float, hard: float, temperature: float) -> dict[str, Term]:
    """hard * CE(y, p) + soft * T^2 KL(p_teacher || p)."""
    return {
        "soft": Term("softmax_kl", weight=soft, temperature=temperature),
        "hard": dataclasses.replace(HARD, weight=hard),
    }


def layers_to(tap: str, depth: int = 8) -> tuple[str, ...]:
    """Patterns of the parameters of `resnet` up to a tap, for `Optim.parameters`.

    tap: "stem" or "stage1" to "stage3".
    """
    blocks = (depth - 2) // 6 * _TAPS.index(tap)
    return (
        "Conv_0/*",
        "GroupNorm_0/*",
        *(f"BasicBlock_{block}/*" for block in range(blocks)),
    )
