"""One crop for both and a crop for each, of several sizes: a study of ordering 4, whose
mild crops hardly differ from one another in images of 8 pixels."""

import functools

from common import base, seen
from consistency import MILD

from kdjax.config import Run, above

CLAIM = (
    "The smaller the crops, the more a student loses whose teacher sees another one (a "
    "study of figure 3 of arXiv 2106.05237)"
)
DURATIONS = {"tiny": (1,), "digits": (64,), "cifar": (16,)}
MODES = {"same": "consistent", "ind": "independent"}
# The side of a crop as a share of the image's; 0.875 is in `consistency.py`.
SHARES = (0.75, 0.625, 0.5)


def cropped(scale: str = "digits", *, mode: str, share: float) -> Run:
    """Crops of one size, anywhere in the image."""
    return seen(base(scale), mode=MODES[mode], share=share, **MILD)


def name(mode: str, share: float) -> str:
    return f"{mode} {share:g}"


VARIANTS = {
    name(mode, share): functools.partial(cropped, mode=mode, share=share)
    for share in SHARES
    for mode in MODES
}
EXPECTED = tuple(
    above(
        f"4: one crop above a crop for each in {metric}, {share:g} of the side",
        name("same", share),
        name("ind", share),
        metric=metric,
    )
    for share in SHARES
    for metric in ("accuracy", "agreement")
)
