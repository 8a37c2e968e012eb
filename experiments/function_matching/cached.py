"""Target caching: how many classes and how many epochs of targets suffice."""

import functools

from experiments.function_matching.common import base, seen, stored
from kdjax.config import Run
from kdjax.experiments import Experiment, Hypothesis, above

# Classes kept of ten, and of the paper's hundred.
OF_TEN = {"one": 1, "few": 2, "some": 3, "half": 5}
OF_HUNDRED = {"one": 1, "few": 5, "some": 10, "half": 50}


def live(scale: str = "digits") -> Run:
    """Function matching under a live teacher."""
    return base(scale)


def whole(scale: str = "digits") -> Run:
    """All targets, all classes."""
    return stored(base(scale))


def kept(scale: str = "digits", *, classes: str, tail: str = "uniform") -> Run:
    """The top-k classes; the tail is uniform, one bucket, or dropped."""
    counts = OF_HUNDRED if scale == "paper" else OF_TEN
    return stored(base(scale), top_k=counts[classes], tail=tail)


def passes(scale: str = "digits", *, count: int) -> Run:
    """A number of epochs, in cycles."""
    return stored(base(scale), epochs=0.04 if scale == "tiny" else count)


def fixed(scale: str = "digits") -> Run:
    """One target an image, of the whole image; the student sees crops."""
    return stored(seen(base(scale), mode="fixed"))


STORED = ("all", "half", "some", "few", "some bucket", "10 passes", "100 passes")

EXPERIMENT = Experiment(
    claim=(
        "Answers stored for the very views are as good as a live teacher's, with few "
        "classes kept and passes gone round in; one answer an image is not"
    ),
    variants={
        "live": live,
        "all": whole,
        **{name: functools.partial(kept, classes=name) for name in OF_TEN},
        "some bucket": functools.partial(kept, classes="some", tail="bucket"),
        "some renormalised": functools.partial(
            kept, classes="some", tail="renormalize"
        ),
        **{
            f"{count} pass{'es' * (count > 1)}": functools.partial(passes, count=count)
            for count in (1, 10, 100)
        },
        "fixed": fixed,
    },
    # At scale paper the targets of 10 000 epochs are 4 GB.
    durations={"tiny": (1,), "digits": (64,), "cifar": (16,), "paper": (10,)},
    hypotheses=(
        *(above(f"{name} above fixed", name, "fixed") for name in ("live", *STORED)),
        above("10 passes above one", "10 passes", "1 pass"),
        Hypothesis(
            "all is the live teacher (to be undecided)",
            ((1.0, "live", -1), (-1.0, "all", -1)),
        ),
        above(
            "renormalising loses held-out KL against uniform tails",
            "some renormalised",
            "some",
            metric="kl",
        ),
        above(
            "the likeliest class alone loses held-out KL against two of ten",
            "one",
            "few",
            metric="kl",
        ),
    ),
)
