"""Teacher assistants, Mirzadeh et al. 2020, arXiv 1902.03393.

kdjax distill --config experiments/stages/assistants.py:assistants
"""

from experiments.stages import common
from kdjax.config import FromRun, Stages


def assistants(
    path: tuple[int, ...] = (4,),
    *,
    teacher: int = 8,
    student: int = 2,
    weight: float = 0.5,
    temperature: float = 2.0,
    steps: int = common.STEPS,
    workdir: str = "runs/assistants",
) -> Stages:
    """A teacher, assistants of falling width, then the student.

    Each learns from the one before it:
    (1 - weight) CE(y, p) + weight T^2 KL(p_before || p)

    Args:
      path: widths of the assistants, in order. Empty: plain distillation.
      teacher, student: widths of the first and the last network.
    """
    runs = {"teacher": common.teacher(teacher)}
    names = [*(f"assistant{width}" for width in path), "student"]
    for name, width in zip(names, (*path, student), strict=True):
        before = [*runs][-1]
        runs[name] = common.taught(
            steps,
            model=common.resnet(width),
            teacher=FromRun(f"stage:{before}"),
            terms=common.soft_and_hard(weight, 1 - weight, temperature),
        )
    return Stages(runs, workdir)


def plain() -> Stages:
    """The same student under the teacher itself, without assistants."""
    return assistants((), workdir="runs/assistants_none")


def halves(teacher: int = 8, student: int = 2) -> tuple[int, ...]:
    """The widths between teacher and student of which each is half the one before.

    Example:
        >>> halves(16, 2)
        (8, 4)
    """
    widths = []
    while teacher // 2 > student:
        teacher //= 2
        widths.append(teacher)
    return tuple(widths)


def ladder() -> Stages:
    """A teacher of width 16, and an assistant at each half of it."""
    path = halves(16)
    return assistants(path, teacher=16, workdir="runs/assistants_ladder")
