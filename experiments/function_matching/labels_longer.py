"""Labels with mixup for longer and with a larger student: a study of what `labels.py`
does not show at scale digits, a fall when training is long."""

import dataclasses

from experiments.function_matching.common import base, seen
from kdjax.config import Run, labels_only
from kdjax.experiments import Experiment, Hypothesis


def small(scale: str = "digits") -> Run:
    """The student of the other experiments."""
    return labels_only(seen(base(scale), mode="function_matching"))


def large(scale: str = "digits") -> Run:
    """The network of the teacher, 14 times the parameters; ResNet-20 at scale cifar."""
    run = small(scale)
    name = {"name": "resnet20"} if scale == "cifar" else {"width": 8}
    return dataclasses.replace(run, model=dataclasses.replace(run.model, **name))


VARIANTS = {"small": small, "large": large}

EXPERIMENT = Experiment(
    claim=(
        "Students on labels with mixup fall once they have trained long enough for "
        "their size (a study of figure 7 of arXiv 2106.05237, where ResNet-50 does "
        "at 1 200)"
    ),
    variants=VARIANTS,
    durations={"tiny": (1,), "digits": (16, 64, 256), "cifar": (16, 64, 256)},
    hypotheses=tuple(
        Hypothesis(
            f"7: {name} falls from {words}",
            ((1.0, name, at - 1), (-1.0, name, at)),
            paper="78.15 to 76.59",
        )
        for name in VARIANTS
        for at, words in (
            (-2, "the shortest to the second"),
            (-1, "there to the longest"),
        )
    ),
)
