"""Densely distilled flow, Bae et al. 2020, doi 10.1109/TIP.2020.2984362.

kdjax distill --config experiments/stages/dense_flow.py:dense_flow
"""

import dataclasses

from experiments.stages import common
from kdjax.config import FromRun, Run, Stages, Term

TAPS = ("stem", "stage1", "stage2", "stage3")


def dense_flow(
    *,
    scale: str = "digits",
    repeats: int = 1,
    workdir: str = "runs/dense_flow",
) -> Stages:
    """A deep teacher, its flows from the bottom to the top, then the labels.

    Stage m: the mean over all pairs of taps i < j <= m of the mean squared difference
    of G_ij = 1/P F_i^T F_j; only the layers up to tap m move, at a constant rate. The
    sweep over m is repeated. Then CE(y, p), without the teacher.

    The paper was not at hand: pairs, weights and repeats are our reading of its
    abstract.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      repeats: sweeps over all stages.
    """
    runs: dict[str, Run] = {"teacher": common.teacher(scale, common.deep(scale))}
    start = ""
    for sweep in range(1, repeats + 1):
        for upto, tap in enumerate(TAPS[1:], 1):
            name = f"flow{upto}" + f"_{sweep}" * (repeats > 1)
            runs[name] = common.taught(
                scale,
                model=common.student(scale, start),
                teacher=FromRun("stage:teacher"),
                terms={"flow": flow(upto)},
                optim=dataclasses.replace(
                    common.taught(scale).optim,
                    schedule="constant",
                    parameters=common.layers_to(scale, tap),
                ),
            )
            start = f"stage:{name}"
    runs["labels"] = common.on_labels(scale, model=common.student(scale, start))
    return Stages(runs, workdir)


def flow(upto: int) -> Term:
    """The flows between the stem and the stages up to this one."""
    return Term("dense_fsp", student=TAPS, teacher=TAPS, options={"upto": upto})
