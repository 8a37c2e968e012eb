"""A generalist and specialists, Hinton et al. 2015, arXiv 1503.02531, section 5.

kdjax distill --config experiments/stages/specialists.py:specialists
"""

from experiments.stages import common
from kdjax.config import Custom, Ensemble, FromRun, Stages

# Digits of similar strokes. The paper clusters the predictions of the generalist.
CLUSTERS = ("1,4,7", "3,5,8,9")


def specialists(
    clusters: tuple[str, ...] = CLUSTERS,
    *,
    width: int = 8,
    special_steps: int = 400,
    temperature: float = 2.0,
    steps: int = common.STEPS,
    workdir: str = "runs/specialists",
) -> Stages:
    """A generalist, specialists that start from it, then a student of all.

    Args:
      clusters: class ids of each specialist.
      width: of generalist and specialists.
      special_steps: of each specialist.
    """
    runs = {"generalist": common.teacher(width)}
    for i, cluster in enumerate(clusters):
        ids = tuple(int(x) for x in cluster.split(","))
        runs[f"specialist{i}"] = common.teacher(
            width,
            model=common.resnet(width, start="stage:generalist"),
            steps=special_steps,
            strategy=Custom("specialist", options={"cluster": ids}),
        )
    options = {"clusters": clusters, "temperature": temperature}
    runs["student"] = common.taught(
        steps,
        teacher=Ensemble(tuple(FromRun(f"stage:{name}") for name in runs)),
        strategy=Custom("with_specialists", options=options),
    )
    return Stages(runs, workdir)
