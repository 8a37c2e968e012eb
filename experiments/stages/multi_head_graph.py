"""Multi-head graph distillation, Lee, Song 2019, arXiv 1907.02226: heads first.

kdjax distill --config experiments/stages/multi_head_graph.py:multi_head_graph
"""

import dataclasses

from experiments.stages import common
from kdjax.config import Custom, FromRun, ModelConfig, Network, Stages

HEADS = "kdjax.models.graph_heads:graph_heads"


def multi_head_graph(
    *,
    scale: str = "digits",
    weight: float = 1.0,
    workdir: str = "runs/multi_head_graph",
) -> Stages:
    """A deep teacher, attention heads between its three stages, then a student.

    The heads take the student's features too, so both networks have equal channels.
    The accuracy of the stage `heads` is that of the teacher, which is its model.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
    """
    deep = common.deep(scale)
    # Of the first stage: 16 for ResNet-20 and ResNet-56.
    channels = 16 if scale == "cifar" else deep.width

    def network(start: str = "") -> ModelConfig:
        own = ModelConfig(HEADS, width=channels, weights=start)
        return dataclasses.replace(own, resolution=deep.resolution)

    trained = Network(network("stage:heads"), network="heads", frozen=True)
    return Stages(
        {
            "teacher": common.teacher(scale, deep),
            "heads": common.on_labels(
                scale,
                model=dataclasses.replace(deep, weights="stage:teacher"),
                networks={"heads": Network(network())},
                strategy=Custom("graph_heads"),
            ),
            "student": common.taught(
                scale,
                teacher=FromRun("stage:teacher"),
                networks={"heads": trained},
                strategy=Custom("multi_head_graph", options={"weight": weight}),
            ),
        },
        workdir,
    )
