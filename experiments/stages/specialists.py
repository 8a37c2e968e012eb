"""A generalist and specialists, Hinton et al. 2015, arXiv 1503.02531, section 5.

kdjax distill --config experiments/stages/specialists.py:specialists
"""

import dataclasses

from experiments.stages import common
from kdjax.config import Custom, Ensemble, FromRun, Stages

# Digits of similar strokes. The paper clusters the predictions of the generalist.
CLUSTERS = ("1,4,7", "3,5,8,9")


def specialists(
    clusters: tuple[str, ...] = CLUSTERS,
    *,
    scale: str = "digits",
    share: float = 0.4,
    temperature: float = 2.0,
    workdir: str = "runs/specialists",
) -> Stages:
    """A generalist, specialists that start from it, then a student of all.

    Args:
      clusters: class ids of each specialist.
      scale: of the networks and data: tiny, digits or cifar.
      share: of the generalist's steps that each specialist is trained for.
    """
    runs = {"generalist": common.teacher(scale)}
    model, steps = runs["generalist"].model, runs["generalist"].steps
    start = dataclasses.replace(model, weights="stage:generalist")
    for i, cluster in enumerate(clusters):
        ids = tuple(int(x) for x in cluster.split(","))
        runs[f"specialist{i}"] = common.teacher(
            scale,
            start,
            steps=max(2, int(share * steps)),
            strategy=Custom("specialist", options={"cluster": ids}),
        )
    options = {"clusters": clusters, "temperature": temperature}
    runs["student"] = common.taught(
        scale,
        teacher=Ensemble(tuple(FromRun(f"stage:{name}") for name in runs)),
        strategy=Custom("with_specialists", options=options),
    )
    return Stages(runs, workdir)
