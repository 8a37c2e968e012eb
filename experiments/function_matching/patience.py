"""Very long training, under which a student might get worse again."""

from experiments.function_matching import common
from experiments.function_matching.common import base, fixed, seen
from kdjax.config import Run
from kdjax.experiments import Experiment, Hypothesis, above


def mix(scale: str = "digits") -> Run:
    """Function matching."""
    return base(scale)


def same_ic(scale: str = "digits") -> Run:
    """Consistent teaching."""
    return seen(base(scale), mode="consistent")


def fix_rs(scale: str = "digits") -> Run:
    """Both see the whole image, always: the target is a constant."""
    return fixed(base(scale), scale, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=False)


GAINS = {
    "mix": "ImageNet: 73.89, 78.00, 80.30, 81.17, 81.54, 82.18, 82.31 at 30 to 9 600 "
    "epochs; flowers: 77.51, 92.83, 95.54, 96.93 at 1 000 to 1 000 000",
    "same/ic": "ImageNet: 74.95, 78.05, 80.08, 80.63, 81.15, 81.58, 81.76",
}


def _later(name: str, after: int, before: int, **how) -> Hypothesis:
    words = f"from duration {before} to {after}, counted from the longest (-1)"
    metric = how.get("metric", "accuracy")
    terms = ((1.0, name, after), (-1.0, name, before))
    return Hypothesis(f"6: {name} gains {metric} {words}", terms, **how)


EXPERIMENT = Experiment(
    claim=(
        "Under consistent teaching and function matching no run is too long; under a "
        "fixed teacher the longest are worse again (arXiv 2106.05237, figure 4, "
        "tables 3 and 4)"
    ),
    variants={"mix": mix, "same/ic": same_ic, "fix/rs": fix_rs},
    durations={
        "tiny": (1,),
        "digits": (4, 16, 64, 192),
        "cifar": (4, 16, 64, 256),
        "paper": common.DURATIONS["paper"],
    },
    hypotheses=(
        *(
            _later(name, at, at - 1, paper=paper)
            for name, paper in GAINS.items()
            for at in (-3, -2, -1)
        ),
        *(_later(name, -1, -4, metric="agreement") for name in GAINS),
        Hypothesis(
            "2: fix/rs falls from the last but one duration to the longest",
            ((1.0, "fix/rs", -2), (-1.0, "fix/rs", -1)),
            paper="78.11 at 1 200 epochs, 77.56 at 4 800, 76.95 at 9 600",
        ),
        above(
            "mix above fix/rs, longest", "mix", "fix/rs", paper="82.31 against 76.95"
        ),
    ),
    highlight={
        "mix": "function matching",
        "same/ic": "consistent teaching",
        "fix/rs": "fixed teacher",
    },
)
