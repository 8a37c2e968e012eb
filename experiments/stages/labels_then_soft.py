"""Two-stage training: labels first, then the teacher's soft targets.

kdjax distill --config experiments/stages/labels_then_soft.py:labels_then_soft
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Stages


def labels_then_soft(
    *,
    scale: str = "digits",
    alpha: float = 1.0,
    temperature: float = 2.0,
    rate: float = 0.1,
    workdir: str = "runs/labels_then_soft",
) -> Stages:
    """A student on labels, then the same under a teacher, with a new optimizer.

    First CE(y, p); then (1 - alpha) CE(y, p) + alpha T^2 KL(p_teacher || p).

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      rate: learning rate of the second stage, as a share of that of the first.
    """
    optim = common.taught(scale).optim
    slower = dataclasses.replace(optim, lr=rate * optim.lr)
    return Stages(
        {
            "teacher": common.teacher(scale),
            "labels": common.on_labels(scale),
            "soft": common.taught(
                scale,
                teacher=FromRun("stage:teacher"),
                model=common.student(scale, "stage:labels"),
                terms=common.soft_and_hard(alpha, 1 - alpha, temperature),
                optim=slower,
            ),
        },
        workdir,
    )
