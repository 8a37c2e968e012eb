"""Adam, plain momentum, and a preconditioned optimiser, each at its best rate."""

import dataclasses
import functools

from experiments.function_matching import common
from experiments.function_matching.common import large
from kdjax.config import Optim, Run
from kdjax.experiments import Experiment, above, widening

# Multiples of Adam's rate. Momentum has no scale of its own and wants larger ones; Muon
# makes its updates as long as Adam's.
FACTORS = {"adam": (1, 3, 10, 30), "muon": (1, 3, 10, 30), "sgd": (10, 30, 100)}


def adam(scale: str = "digits", *, factor: float = 1) -> Run:
    """Adam, as everywhere."""
    return _with(large(scale), factor)


def muon(scale: str = "digits", *, factor: float = 1) -> Run:
    """Muon with Adam's decay."""
    return _with(large(scale), factor, name="muon")


def sgd(scale: str = "digits", *, factor: float = 10) -> Run:
    """Momentum, with the warm-up and the cosine of the others; it decays by what its
    recipe decays."""
    return _with(large(scale), factor, name="sgd", wd=5e-4)


def _with(run: Run, factor: float, **change) -> Run:
    optim: Optim = dataclasses.replace(run.optim, lr=run.optim.lr * factor, **change)
    return dataclasses.replace(run, optim=optim)


VARIANTS = {
    f"{make.__name__} lr x{factor:g}": functools.partial(make, factor=factor)
    for make in (adam, muon, sgd)
    for factor in FACTORS[make.__name__]
}
PAPER = "Shampoo: +1.23 at 30 epochs, +0.70 at 90, +0.33 at 300, +0.13 at 1 200"

EXPERIMENT = Experiment(
    claim=(
        "A preconditioned optimiser is at least as good as Adam after as many "
        "epochs, and gains most when they are few (arXiv 2106.05237, appendix D: "
        "Shampoo; here Muon)"
    ),
    variants=VARIANTS,
    durations={**common.LARGE, "digits": (1, 4, 16)},
    hypotheses=(
        above("12: muon above adam, shortest", "muon", "adam", at=0, paper=PAPER),
        above("12: muon above adam, longest", "muon", "adam", paper=PAPER),
        widening("12: adam catches up", "adam", "muon", paper=PAPER),
    ),
    select_on_validation={
        name: tuple(v for v in VARIANTS if v.startswith(name)) for name in FACTORS
    },
)
