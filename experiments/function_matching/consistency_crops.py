"""One crop for both and a crop for each, of several sizes: a study of ordering 4, whose
mild crops hardly differ from one another in images of 8 pixels."""

import functools

from experiments.function_matching.common import base, seen
from experiments.function_matching.consistency import MILD
from kdjax.config import Run
from kdjax.experiments import Experiment, above

MODES = {"same": "consistent", "ind": "independent"}
# The side of a crop as a share of the image's; 0.875 is in `consistency.py`.
SHARES = (0.75, 0.625, 0.5)


def cropped(scale: str = "digits", *, mode: str, share: float) -> Run:
    """Crops of one size, anywhere in the image."""
    return seen(base(scale), mode=MODES[mode], crop_fraction=share, **MILD)


def name(mode: str, share: float) -> str:
    return f"{mode} {share:g}"


EXPERIMENT = Experiment(
    claim=(
        "The smaller the crops, the more a student loses whose teacher sees another "
        "one (a study of figure 3 of arXiv 2106.05237)"
    ),
    variants={
        name(mode, share): functools.partial(cropped, mode=mode, share=share)
        for share in SHARES
        for mode in MODES
    },
    durations={"tiny": (1,), "digits": (64,), "cifar": (16,)},
    hypotheses=tuple(
        above(
            f"4: one crop above a crop for each in {metric}, {share:g} of the side",
            name("same", share),
            name("ind", share),
            metric=metric,
        )
        for share in SHARES
        for metric in ("accuracy", "agreement")
    ),
)
