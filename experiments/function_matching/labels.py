"""The same long schedule without a teacher."""

from experiments.function_matching import common
from experiments.function_matching.common import base, seen
from kdjax.config import Run, labels_only
from kdjax.experiments import Experiment, Hypothesis, above


def labels(scale: str = "digits") -> Run:
    """Labels of inception crops."""
    return labels_only(seen(base(scale), mode="consistent"))


def labels_mixup(scale: str = "digits") -> Run:
    """Labels of inception crops, mixed as function matching mixes them."""
    return labels_only(seen(base(scale), mode="function_matching"))


def same_ic(scale: str = "digits") -> Run:
    """Consistent teaching."""
    return seen(base(scale), mode="consistent")


def mix(scale: str = "digits") -> Run:
    """Function matching."""
    return seen(base(scale), mode="function_matching")


PAPER = "ImageNet: 78.15 against 81.54 at 1 200 epochs, 76.59 against 82.18 at 4 800"

EXPERIMENT = Experiment(
    claim=(
        "Labels under the same schedule and mixup end below the distilled student, "
        "and lose when trained long (arXiv 2106.05237, figure 7 and table 3)"
    ),
    variants={
        "labels": labels,
        "labels+mixup": labels_mixup,
        "same/ic": same_ic,
        "mix": mix,
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(
            above(f"7: mix above {other}, {words}", "mix", other, at=at, paper=PAPER)
            for other in ("labels", "labels+mixup")
            for at, words in (
                (0, "shortest"),
                (1, "second"),
                (-2, "last but one"),
                (-1, "longest"),
            )
        ),
        Hypothesis(
            "7: labels+mixup fall from the last but one duration to the longest",
            ((1.0, "labels+mixup", -2), (-1.0, "labels+mixup", -1)),
            paper="78.15 to 76.59",
        ),
    ),
    highlight={
        "mix": "function matching",
        "same/ic": "consistent teaching",
        "labels+mixup": "labels with mixup",
        "labels": "labels",
    },
)
