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

# Widths on the digits, depths on CIFAR. Of three teachers the vote has no tie.
_SIZES = {"tiny": (4, 6, 8), "digits": (4, 6, 8), "cifar": (32, 44, 56)}


def oracle(
    *,
    scale: str = "digits",
    rule: str = "oracle",
    workdir: str = "runs/oracle",
) -> Stages:
    """Teachers weighted by example: 0.1 CE(y, p) + 0.9 sum_m w_m T^2 KL(p_m || p).

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      rule: of `kdjax.targets.teacher_weights`: "oracle" for equal weights of those
        that are right, "entropy" or "confidence".
    """
    terms = common.soft_and_hard(0.9, 0.1, 4.0)
    weights = {"example_weights": "teacher_weights", "example_options": {"rule": rule}}
    terms["soft"] = dataclasses.replace(terms["soft"], **weights)
    student = common.taught(scale, teacher=members(scale), terms=terms)
    return Stages({**teachers(scale), "student": student}, workdir)


def majority(
    *,
    scale: str = "digits",
    workdir: str = "runs/majority",
) -> Stages:
    """The strategy `majority_triplets`: the mean of the teachers, and their vote.

    scale: of the networks and data: tiny, digits or cifar.
    """
    strategy = Custom("majority_triplets")
    student = common.taught(scale, teacher=members(scale), strategy=strategy)
    return Stages({**teachers(scale), "student": student}, workdir)


def graph(
    *,
    scale: str = "digits",
    workdir: str = "runs/graph",
) -> Stages:
    """The strategy `teacher_graph`: weighted predictions, and pairs of features.

    The paper's teachers learn without labels. These learn by labels, and the strategy
    reads their features alone.

    scale: of the networks and data: tiny, digits or cifar.
    """
    strategy = Custom("teacher_graph")
    student = common.taught(scale, teacher=members(scale), strategy=strategy)
    return Stages({**teachers(scale), "student": student}, workdir)


def two_teachers(
    *,
    scale: str = "digits",
    weight: float = 1.0,
    loose: float = 0.4,
    workdir: str = "runs/two_teachers",
) -> Stages:
    """One teacher for the predictions, and one for the features.

    L = 0.1 CE(y, p) + 0.9 T^2 KL(p_loose || p) + weight * |r(F) - F_strict|^2

    The map r is a trained 1x1 convolution. The paper's weights could not be checked.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      loose: share of the strict teacher's steps that the loose one is trained for.
    """
    terms = common.soft_and_hard(0.9, 0.1, 4.0)
    terms["soft"] = dataclasses.replace(terms["soft"], teacher="0/logits")
    terms["hint"] = Term(
        "hint_l2", weight=weight, student="stage2", teacher="1/stage2", projector=True
    )
    strict = common.teacher(scale)
    runs = {
        "loose": common.teacher(scale, steps=max(2, int(loose * strict.steps))),
        "strict": strict,
        "student": common.taught(
            scale,
            teacher=Ensemble((FromRun("stage:loose"), FromRun("stage:strict"))),
            terms=terms,
        ),
    }
    return Stages(runs, workdir)


def teachers(scale: str) -> dict[str, Run]:
    """A stage for each teacher: `teacher0`, `teacher1`, ..."""
    models = [common.sized(scale, size) for size in _SIZES[scale]]
    return {f"teacher{i}": common.teacher(scale, x) for i, x in enumerate(models)}


def members(scale: str) -> Ensemble:
    """All of them as the teachers of a run."""
    return Ensemble(tuple(FromRun(f"stage:{name}") for name in teachers(scale)))
