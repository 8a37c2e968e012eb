"""FSP, Yim et al., CVPR 2017: flows between layers first, then the labels.

kdjax distill --config experiments/stages/fsp.py:fsp
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Stages, Term

TAPS = ("stem", "stage1", "stage2", "stage3")


def fsp(
    *,
    scale: str = "digits",
    workdir: str = "runs/fsp",
) -> Stages:
    """A deep teacher, the student's layers by the teacher's flows, then the labels.

    Flow: the sum over the three stages of |G_teacher - G|^2, where G = 1/P F1^T F2 is
    of the features before and behind a stage; the larger map is pooled to the smaller.
    The head does not move. Then CE(y, p), without the teacher.

    Flows need equal channels. So the teacher is deeper and not wider, as in the paper,
    where a network of 26 layers teaches one of 8.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
    """
    flows = {
        f"flow of {end}": Term(
            "dense_fsp",
            student=(start, end),
            teacher=(start, end),
            options={"variant": "sum"},
        )
        for start, end in zip(TAPS, TAPS[1:], strict=False)
    }
    optim = common.taught(scale).optim
    below = dataclasses.replace(optim, parameters=common.layers_to(scale, "stage3"))
    return Stages(
        {
            "teacher": common.teacher(scale, common.deep(scale)),
            "flow": common.taught(
                scale,
                teacher=FromRun("stage:teacher"),
                terms=flows,
                optim=below,
            ),
            "labels": common.on_labels(
                scale, model=common.student(scale, "stage:flow")
            ),
        },
        workdir,
    )
