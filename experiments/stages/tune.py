"""Self-distillation: train a network, then tune it on its own predictions.

kdjax distill --config experiments/stages/tune.py:tune
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Optim, Stages


def tune(
    *,
    alpha: float = 0.5,
    temperature: float = 2.0,
    rate: float = 0.1,
    train_steps: int = common.STEPS,
    steps: int = common.STEPS,
    workdir: str = "runs/tune",
) -> Stages:
    """A network on labels, then the same one under itself as it was.

    First CE(y, p); then (1 - alpha) CE(y, p) + alpha T^2 KL(p_before || p). Born-again
    networks (`born_again.py`) begin anew instead.

    Args:
      alpha: 0 continues on labels alone. At 1 the first gradient is zero.
      rate: learning rate of the second stage, as a share of that of the first.
    """
    before = "stage:train"
    slower = dataclasses.replace(Optim(), lr=rate * Optim().lr)
    return Stages(
        {
            "train": common.on_labels(train_steps),
            "tune": common.taught(
                steps,
                teacher=FromRun(before),
                model=common.resnet(start=before),
                terms=common.soft_and_hard(alpha, 1 - alpha, temperature),
                optim=slower,
            ),
        },
        workdir,
    )
