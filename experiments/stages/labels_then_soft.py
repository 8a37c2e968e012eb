"""Two-stage training: labels first, then the teacher's soft targets.

kdjax distill --config experiments/stages/labels_then_soft.py:labels_then_soft
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Optim, Stages


def labels_then_soft(
    *,
    alpha: float = 1.0,
    temperature: float = 2.0,
    rate: float = 0.1,
    label_steps: int = common.STEPS,
    steps: int = common.STEPS,
    workdir: str = "runs/labels_then_soft",
) -> Stages:
    """A student on labels, then the same under a teacher, with a new optimizer.

    First CE(y, p); then (1 - alpha) CE(y, p) + alpha T^2 KL(p_teacher || p).

    Args:
      rate: learning rate of the second stage, as a share of that of the first.
    """
    slower = dataclasses.replace(Optim(), lr=rate * Optim().lr)
    return Stages(
        {
            "teacher": common.teacher(),
            "labels": common.on_labels(label_steps),
            "soft": common.taught(
                steps,
                teacher=FromRun("stage:teacher"),
                model=common.resnet(start="stage:labels"),
                terms=common.soft_and_hard(alpha, 1 - alpha, temperature),
                optim=slower,
            ),
        },
        workdir,
    )
