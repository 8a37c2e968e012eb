"""Adam, plain momentum, and a preconditioned optimiser."""

import dataclasses

import common
from common import large

from kdjax.config import Optim, Run, above, widening

CLAIM = (
    "A preconditioned optimiser is at least as good as Adam after as many epochs, and "
    "gains most when they are few (arXiv 2106.05237, appendix D: Shampoo; here Muon)"
)
DURATIONS = common.LARGE
# Momentum alone needs a rate of its own, and decays by what its recipe decays.
SGD = {"tiny": 0.1, "digits": 0.1, "cifar": 0.1, "paper": 0.8}


def adam(scale: str = "digits") -> Run:
    """Adam, as everywhere."""
    return large(scale)


def muon(scale: str = "digits") -> Run:
    """Muon with Adam's rate and decay, its updates as long as Adam's."""
    return _with(large(scale), name="muon")


def sgd(scale: str = "digits") -> Run:
    """Momentum, with the warm-up and the cosine of the others."""
    return _with(large(scale), name="sgd", lr=SGD[scale], wd=5e-4)


def _with(run: Run, **change) -> Run:
    optim: Optim = dataclasses.replace(run.optim, **change)
    return dataclasses.replace(run, optim=optim)


VARIANTS = {"adam": adam, "muon": muon, "sgd": sgd}
PAPER = "Shampoo: +1.23 at 30 epochs, +0.70 at 90, +0.33 at 300, +0.13 at 1 200"
EXPECTED = (
    above("12: muon above adam, shortest", "muon", "adam", at=0, paper=PAPER),
    above("12: muon above adam, longest", "muon", "adam", paper=PAPER),
    widening("12: adam catches up", "adam", "muon", paper=PAPER),
)
