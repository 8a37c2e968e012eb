"""Teacher assistants, Mirzadeh et al. 2020, arXiv 1902.03393.

kdjax distill --config experiments/stages/assistants.py:assistants
"""

from experiments.stages import common
from kdjax.config import FromRun, Stages

# Sizes of teacher, assistant and student by scale: widths on the digits, depths on
# CIFAR.
_SIZES = {"tiny": (8, 4, 2), "digits": (8, 4, 2), "cifar": (56, 32, 20)}


def assistants(
    path: tuple[int, ...] | None = None,
    *,
    scale: str = "digits",
    teacher: int = 0,
    student: int = 0,
    weight: float = 0.5,
    temperature: float = 2.0,
    workdir: str = "runs/assistants",
) -> Stages:
    """A teacher, assistants of falling size, then the student.

    Each learns from the one before it:
    (1 - weight) CE(y, p) + weight T^2 KL(p_before || p)

    Args:
      path: sizes of the assistants, in order: widths on the digits, depths on CIFAR.
        Empty: plain distillation. None: one, between teacher and student.
      scale: of the networks and data: tiny, digits or cifar.
      teacher, student: sizes of the first and the last network. 0: those of the scale.
    """
    large, middle, small = _SIZES[scale]
    path = (middle,) if path is None else path
    teacher, student = teacher or large, student or small
    runs = {"teacher": common.teacher(scale, common.sized(scale, teacher))}
    names = [*(f"assistant{size}" for size in path), "student"]
    for name, size in zip(names, (*path, student), strict=True):
        before = [*runs][-1]
        runs[name] = common.taught(
            scale,
            model=common.sized(scale, size),
            teacher=FromRun(f"stage:{before}"),
            terms=common.soft_and_hard(weight, 1 - weight, temperature),
        )
    return Stages(runs, workdir)


def plain(*, scale: str = "digits") -> Stages:
    """The same student under the teacher itself, without assistants."""
    return assistants((), scale=scale, workdir="runs/assistants_none")


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


def ladder(*, scale: str = "digits") -> Stages:
    """A larger teacher, and assistants of every size between it and the student.

    Widths 16, 8 and 4 above 2 on the digits; depths 110, 56, 44 and 32 above 20 on
    CIFAR.
    """
    size, path = (110, (56, 44, 32)) if scale == "cifar" else (16, halves(16))
    workdir = "runs/assistants_ladder"
    return assistants(path, scale=scale, teacher=size, workdir=workdir)
