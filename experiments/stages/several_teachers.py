"""Several teachers at once: weights by example, majority votes, two kinds of knowledge.

    kdjax distill --config experiments/stages/several_teachers.py:oracle
    kdjax distill --config experiments/stages/several_teachers.py:majority
    kdjax distill --config experiments/stages/several_teachers.py:two_teachers
    kdjax distill --config experiments/stages/several_teachers.py:graph

Hinton et al. 2015, arXiv 1503.02531, weighted as in Kang et al. 2019, arXiv 1911.13019;
You et al., KDD 2017; Chen et al., ISNN 2019; Zhang and Peng 2018, arXiv 1804.10069.
"""

import dataclasses

from experiments.stages import common
from kdjax.config import Custom, Ensemble, FromRun, Run, Stages, Term

# Of three teachers the vote has no tie.
WIDTHS = (4, 6, 8)


def oracle(
    widths: tuple[int, ...] = WIDTHS,
    *,
    rule: str = "oracle",
    steps: int = common.STEPS,
    workdir: str = "runs/oracle",
) -> Stages:
    """Teachers weighted by example: 0.1 CE(y, p) + 0.9 sum_m w_m T^2 KL(p_m || p).

    Args:
      widths: of the teachers.
      rule: of `kdjax.targets.teacher_weights`: "oracle" for equal weights of those
        that are right, "entropy" or "confidence".
    """
    terms = common.soft_and_hard(0.9, 0.1, 4.0)
    weights = {"example_weights": "teacher_weights", "example_options": {"rule": rule}}
    terms["soft"] = dataclasses.replace(terms["soft"], **weights)
    student = common.taught(steps, teacher=members(len(widths)), terms=terms)
    return Stages({**teachers(widths), "student": student}, workdir)


def majority(
    widths: tuple[int, ...] = WIDTHS,
    *,
    steps: int = common.STEPS,
    workdir: str = "runs/majority",
) -> Stages:
    """The strategy `majority_triplets`: the mean of the teachers, and their vote.

    widths: of the teachers.
    """
    strategy = Custom("majority_triplets")
    student = common.taught(steps, teacher=members(len(widths)), strategy=strategy)
    return Stages({**teachers(widths), "student": student}, workdir)


def graph(
    widths: tuple[int, ...] = WIDTHS,
    *,
    steps: int = common.STEPS,
    workdir: str = "runs/graph",
) -> Stages:
    """The strategy `teacher_graph`: weighted predictions, and pairs of features.

    The paper's teachers learn without labels. These learn by labels, and the strategy
    reads their features alone.

    widths: of the teachers.
    """
    strategy = Custom("teacher_graph")
    student = common.taught(steps, teacher=members(len(widths)), strategy=strategy)
    return Stages({**teachers(widths), "student": student}, workdir)


def two_teachers(
    *,
    weight: float = 1.0,
    loose_steps: int = 400,
    steps: int = common.STEPS,
    workdir: str = "runs/two_teachers",
) -> Stages:
    """One teacher for the predictions, and one for the features.

    L = 0.1 CE(y, p) + 0.9 T^2 KL(p_loose || p) + weight * |r(F) - F_strict|^2

    The strict teacher is trained to the end, the loose one for few steps. The map r
    is a trained 1x1 convolution. The paper's weights could not be checked.
    """
    terms = common.soft_and_hard(0.9, 0.1, 4.0)
    terms["soft"] = dataclasses.replace(terms["soft"], teacher="0/logits")
    terms["hint"] = Term(
        "hint_l2", weight=weight, student="stage2", teacher="1/stage2", projector=True
    )
    runs = {
        "loose": common.teacher(steps=loose_steps),
        "strict": common.teacher(),
        "student": common.taught(
            steps,
            teacher=Ensemble((FromRun("stage:loose"), FromRun("stage:strict"))),
            terms=terms,
        ),
    }
    return Stages(runs, workdir)


def teachers(widths: tuple[int, ...]) -> dict[str, Run]:
    """A stage for each teacher: `teacher0`, `teacher1`, ..."""
    return {f"teacher{i}": common.teacher(width) for i, width in enumerate(widths)}


def members(count: int) -> Ensemble:
    """All of them as the teachers of a run."""
    return Ensemble(tuple(FromRun(f"stage:teacher{i}") for i in range(count)))
