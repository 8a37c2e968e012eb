"""Moonshine, Crowley et al. 2018, arXiv 1711.02613: cheap convolutions.

kdjax distill --config experiments/stages/moonshine.py:moonshine
"""

from experiments.stages import common
from kdjax.config import HARD, FromRun, ModelConfig, Stages, Term

TAPS = ("stage1", "stage2", "stage3")


def moonshine(
    *,
    network: str = "wrn_10_1",
    convs: str = "g4b2",
    weight: float = 1000.0,
    steps: int = common.STEPS,
    workdir: str = "runs/moonshine",
) -> Stages:
    """A wide ResNet, then the same one with cheap convolutions by its attention maps.

    CE(y, p) + weight * sum over the three stages of the attention transfer loss.
    `labels` is the cheap network without the teacher.

    Args:
      convs: the convolutions of the student, as at the end of its name: `g4b2` has
        groups of 4 channels between 1x1 convolutions to half the width and back.
      weight: 1000 for three pairs, as in the authors' code.
    """

    def model(name: str) -> ModelConfig:
        return ModelConfig(name, resolution=8)

    cheap = model(f"{network}_{convs}")
    attention = Term(
        "attention_transfer", weight=weight, student=TAPS, teacher=TAPS, pair="depth"
    )
    return Stages(
        {
            "teacher": common.teacher(model=model(network)),
            "labels": common.on_labels(steps, model=cheap),
            "student": common.taught(
                steps,
                model=cheap,
                teacher=FromRun("stage:teacher"),
                terms={"hard": HARD, "attention": attention},
            ),
        },
        workdir,
    )
