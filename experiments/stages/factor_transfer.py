"""Factor transfer, Kim et al. 2018, arXiv 1802.04977: a paraphraser first.

kdjax distill --config experiments/stages/factor_transfer.py:factor_transfer
"""

import dataclasses

from experiments.methods import common as methods
from experiments.stages import common
from kdjax.config import Custom, FromRun, ModelConfig, Network, Stages

PARAPHRASER = "kdjax.models.paraphraser:paraphraser"


def factor_transfer(
    *,
    scale: str = "digits",
    weight: float = 200.0,
    workdir: str = "runs/factor_transfer",
) -> Stages:
    """A teacher, an auto-encoder of its last map, then a student with a translator.

    The accuracy of the stage `paraphraser` is that of the teacher, which is its model.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
    """
    large = methods.large(scale)
    # Of the teacher's last map: 64 for ResNet-56, else four times its width.
    channels = 64 if scale == "cifar" else 4 * large.width

    def network(start: str = "") -> ModelConfig:
        own = ModelConfig(PARAPHRASER, width=channels, weights=start)
        return dataclasses.replace(own, resolution=large.resolution)

    trained = Network(network("stage:paraphraser"), network="paraphraser", frozen=True)
    return Stages(
        {
            "teacher": common.teacher(scale),
            "paraphraser": common.on_labels(
                scale,
                model=dataclasses.replace(large, weights="stage:teacher"),
                networks={"paraphraser": Network(network())},
                strategy=Custom("paraphraser"),
            ),
            "student": common.taught(
                scale,
                teacher=FromRun("stage:teacher"),
                networks={"paraphraser": trained},
                strategy=Custom("factor_transfer", options={"weight": weight}),
            ),
        },
        workdir,
    )
