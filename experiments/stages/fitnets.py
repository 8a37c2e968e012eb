"""FitNets, Romero et al. 2015, arXiv 1412.6550: a hint first, then distillation.

kdjax distill --config experiments/stages/fitnets.py:fitnets
"""

import dataclasses

from experiments.stages import common
from kdjax.config import HARD, FromRun, Scalar, Stages, Term


def fitnets(
    *,
    scale: str = "digits",
    hint: str = "stage2",
    guided: str = "stage2",
    start: float = 4.0,
    end: float = 1.0,
    temperature: float = 3.0,
    workdir: str = "runs/fitnets",
) -> Stages:
    """A teacher, the student up to its guided layer, then the whole student.

    Hint: 1/2 |F_teacher - r(F)|^2, the mean over positions; only the layers up to
    `guided` and the projector r move. r is dropped behind it.
    Then CE(y, p) + lambda H(p_teacher, p) at temperature T, lambda falling linearly.

    Args:
      scale: of the networks and data: tiny, digits or cifar.
      hint, guided: taps of the teacher and the student, of one size.
      start, end: lambda at the first and the last step. The paper's H has no factor
        T^2, and our KL has, so that the weight of the term is lambda / T^2.
    """
    teacher = FromRun("stage:teacher")
    loss = Term(
        "hint_l2",
        student=guided,
        teacher=hint,
        projector=True,
        options={"variant": "fitnets"},
    )
    optim = common.taught(scale).optim
    below = dataclasses.replace(optim, parameters=common.layers_to(scale, guided))
    weight = Scalar(start / temperature**2, end / temperature**2, "linear")
    soft = Term("softmax_kl", weight=weight, temperature=temperature)
    return Stages(
        {
            "teacher": common.teacher(scale),
            "hint": common.taught(
                scale, teacher=teacher, terms={"hint": loss}, optim=below
            ),
            "kd": common.taught(
                scale,
                teacher=teacher,
                model=common.student(scale, "stage:hint"),
                terms={"hard": HARD, "soft": soft},
            ),
        },
        workdir,
    )
