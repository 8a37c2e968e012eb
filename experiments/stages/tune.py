"""Self-distillation: train a network, then tune it on its own predictions.

kdjax distill --config experiments/stages/tune.py:tune
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Stages


def tune(
    *,
    scale: str = "digits",
    alpha: float = 0.5,
    temperature: float = 2.0,
    rate: float = 0.1,
    workdir: str = "runs/tune",
) -> Stages:
    """A network on labels, then the same one under itself as it was.

    First CE(y, p); then (1 - alpha) CE(y, p) + alpha T^2 KL(p_before || p). Born-again
    networks (`born_again.py`) begin anew instead.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      alpha: 0 continues on labels alone. At 1 the first gradient is zero.
      rate: learning rate of the second stage, as a share of that of the first.
    """
    before = "stage:train"
    optim = common.taught(scale).optim
    slower = dataclasses.replace(optim, lr=rate * optim.lr)
    return Stages(
        {
            "train": common.on_labels(scale),
            "tune": common.taught(
                scale,
                teacher=FromRun(before),
                model=common.student(scale, before),
                terms=common.soft_and_hard(alpha, 1 - alpha, temperature),
                optim=slower,
            ),
        },
        workdir,
    )
