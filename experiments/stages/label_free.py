"""Features of a teacher without labels, then labels: Theia 2024, arXiv 2407.20179.

kdjax distill --config experiments/stages/label_free.py:label_free
"""

from experiments.stages import common
from kdjax.config import Custom, FromRun, Stages


def label_free(
    *,
    scale: str = "digits",
    tap: str = "embedding",
    workdir: str = "runs/label_free",
) -> Stages:
    """A student that matches the teacher's features, then learns labels.

    The first stage reads no labels, so its student has random logits.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      tap: the features of both networks.
    """
    matching = Custom("feature_matching", options={"tap": tap})
    return Stages(
        {
            "teacher": common.teacher(scale),
            "features": common.taught(
                scale, teacher=FromRun("stage:teacher"), strategy=matching
            ),
            "labels": common.on_labels(
                scale, model=common.student(scale, "stage:features")
            ),
        },
        workdir,
    )
