"""Moonshine, Crowley et al. 2018, arXiv 1711.02613: cheap convolutions.

kdjax distill --config experiments/stages/moonshine.py:moonshine
"""

from experiments.stages import common
from kdjax.config import HARD, FromRun, Stages, Term

TAPS = ("stage1", "stage2", "stage3")


def moonshine(
    *,
    scale: str = "digits",
    network: str = "",
    convs: str = "g4b2",
    weight: float = 1000.0,
    workdir: str = "runs/moonshine",
) -> Stages:
    """A wide ResNet, then the same one with cheap convolutions by its attention maps.

    CE(y, p) + weight * sum over the three stages of the attention transfer loss.
    `labels` is the cheap network without the teacher.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      network: the teacher's; empty: wrn_40_2 on CIFAR, and else wrn_10_1.
      convs: the convolutions of the student, as at the end of its name: `g4b2` has
        groups of 4 channels between 1x1 convolutions to half the width and back.
      weight: 1000 for three pairs, as in the authors' code.
    """
    network = network or ("wrn_40_2" if scale == "cifar" else "wrn_10_1")
    cheap = common.named(scale, f"{network}_{convs}")
    attention = Term(
        "attention_transfer", weight=weight, student=TAPS, teacher=TAPS, pair="depth"
    )
    return Stages(
        {
            "teacher": common.teacher(scale, common.named(scale, network)),
            "labels": common.on_labels(scale, model=cheap),
            "student": common.taught(
                scale,
                model=cheap,
                teacher=FromRun("stage:teacher"),
                terms={"hard": HARD, "attention": attention},
            ),
        },
        workdir,
    )
