"""FSP, Yim et al., CVPR 2017: flows between layers first, then the labels.

kdjax distill --config experiments/stages/fsp.py:fsp
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Optim, Stages, Term

TAPS = ("stem", "stage1", "stage2", "stage3")


def fsp(
    *,
    width: int = 2,
    teacher_depth: int = 26,
    flow_steps: int = common.STEPS,
    steps: int = common.STEPS,
    workdir: str = "runs/fsp",
) -> Stages:
    """A deep teacher, the student's layers by the teacher's flows, then the labels.

    Flow: the sum over the three stages of |G_teacher - G|^2, where G = 1/P F1^T F2 is
    of the features before and behind a stage; the larger map is pooled to the smaller.
    The head does not move. Then CE(y, p), without the teacher.

    Args:
      width: of teacher and student. Flows need equal channels, as in the paper, where
        a network of 26 layers teaches one of 8.
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
    below = dataclasses.replace(Optim(), parameters=common.layers_to("stage3"))
    return Stages(
        {
            "teacher": common.teacher(width, teacher_depth),
            "flow": common.taught(
                flow_steps,
                model=common.resnet(width),
                teacher=FromRun("stage:teacher"),
                terms=flows,
                optim=below,
            ),
            "labels": common.on_labels(
                steps, model=common.resnet(width, start="stage:flow")
            ),
        },
        workdir,
    )
