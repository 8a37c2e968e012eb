"""Factor transfer, Kim et al. 2018, arXiv 1802.04977: a paraphraser first.

kdjax distill --config experiments/stages/factor_transfer.py:factor_transfer
"""

from experiments.stages import common
from kdjax.config import Custom, FromRun, ModelConfig, Network, Stages

PARAPHRASER = "kdjax.models.paraphraser:paraphraser"


def factor_transfer(
    *,
    width: int = 8,
    weight: float = 200.0,
    paraphraser_steps: int = common.STEPS,
    steps: int = common.STEPS,
    workdir: str = "runs/factor_transfer",
) -> Stages:
    """A teacher, an auto-encoder of its last map, then a student with a translator.

    The accuracy of the stage `paraphraser` is that of the teacher, which is its model.

    Args:
      width: of the teacher, whose last map has four times as many channels.
    """

    def network(start: str = "") -> ModelConfig:
        return ModelConfig(PARAPHRASER, width=4 * width, resolution=8, weights=start)

    trained = Network(network("stage:paraphraser"), network="paraphraser", frozen=True)
    return Stages(
        {
            "teacher": common.teacher(width),
            "paraphraser": common.on_labels(
                paraphraser_steps,
                model=common.resnet(width, start="stage:teacher"),
                networks={"paraphraser": Network(network())},
                strategy=Custom("paraphraser"),
            ),
            "student": common.taught(
                steps,
                teacher=FromRun("stage:teacher"),
                networks={"paraphraser": trained},
                strategy=Custom("factor_transfer", options={"weight": weight}),
            ),
        },
        workdir,
    )
