"""How much of the teacher's answers must be stored, and for how many passes."""

import common
from common import base, seen, stored

from kdjax.config import Expectation, Run, above

CLAIM = (
    "Answers stored for the very views are as good as a live teacher's, with few "
    "classes kept and passes gone round in; one answer an image is not"
)
DURATIONS = {k: v[-1:] for k, v in common.DURATIONS.items()}
# Classes kept: three of ten, ten of a hundred.
FEW = {"tiny": 3, "digits": 3, "cifar": 3, "paper": 10}


def live(scale: str = "digits") -> Run:
    """Function matching under a live teacher."""
    return base(scale)


def whole(scale: str = "digits") -> Run:
    """Every answer, whole."""
    return stored(base(scale))


def uniform(scale: str = "digits") -> Run:
    """A few classes; the rest is spread evenly."""
    return stored(base(scale), top_k=FEW[scale], tail="uniform")


def bucket(scale: str = "digits") -> Run:
    """A few classes; the rest is one class."""
    return stored(base(scale), top_k=FEW[scale], tail="bucket")


def renormalise(scale: str = "digits") -> Run:
    """A few classes; the rest is left out."""
    return stored(base(scale), top_k=FEW[scale], tail="renormalise")


def one(scale: str = "digits") -> Run:
    """The likeliest class alone; the rest is spread evenly."""
    return stored(base(scale), top_k=1)


def passes_10(scale: str = "digits") -> Run:
    """Ten passes, gone round in."""
    return stored(base(scale), epochs=0.04 if scale == "tiny" else 10)


def fixed(scale: str = "digits") -> Run:
    """One answer an image, to the whole of it; the student sees crops."""
    return stored(seen(base(scale), mode="fixed"))


VARIANTS = {
    "live": live,
    "all": whole,
    "few uniform": uniform,
    "few bucket": bucket,
    "few renormalised": renormalise,
    "one": one,
    "10 passes": passes_10,
    "fixed": fixed,
}
STORED = ("all", "few uniform", "few bucket", "10 passes")
EXPECTED = (
    *(above(f"{name} above fixed", name, "fixed") for name in ("live", *STORED)),
    Expectation(
        "all is the live teacher (to be undecided)",
        ((1.0, "live", -1), (-1.0, "all", -1)),
    ),
    above(
        "renormalising loses held-out KL against uniform tails",
        "few renormalised",
        "few uniform",
        metric="kl",
    ),
    above(
        "the likeliest class alone loses held-out KL against a few",
        "one",
        "few uniform",
        metric="kl",
    ),
)
