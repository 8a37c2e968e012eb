"""Temperature, learning rate and weight decay, chosen on the validation split."""

import dataclasses
import functools

from experiments.function_matching.common import base
from kdjax.config import Run, Scalar, Term
from kdjax.experiments import Experiment, Hypothesis, above

# The paper's 80 settings; small networks want larger rates.
TEMPERATURES, RATES = (1, 2, 5, 10), (3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
FASTER = {"tiny": 10, "digits": 10, "cifar": 3, "paper": 1}


def tuned(
    scale: str = "digits", *, temperature: float, rate: float, decay: float
) -> Run:
    """Function matching with a temperature, a rate (of scale `paper`) and a decay."""
    run, rate = base(scale), rate * FASTER[scale]
    return dataclasses.replace(
        run,
        terms={"soft": Term(temperature=Scalar(float(temperature)))},
        optim=dataclasses.replace(run.optim, lr=rate, wd=decay),
    )


def name(temperature: float, rate: float, decay: float) -> str:
    return f"T={temperature} lr={rate:g} of paper wd={decay:g}"


VARIANTS = {
    name(t, lr, wd): functools.partial(tuned, temperature=t, rate=lr, decay=wd)
    for wd in DECAYS
    for t in TEMPERATURES
    for lr in RATES
}
SMALL, LARGE = (f"best of wd={wd:g}" for wd in (DECAYS[0], DECAYS[-1]))
PAPER = "flowers: 1e-3, 3e-4, 1e-4, 1e-5 at 1 000 to 1 000 000 epochs"

EXPERIMENT = Experiment(
    claim=(
        "The longer the training, the smaller the best weight decay; temperature and "
        "rate follow no trend (arXiv 2106.05237, table 4)"
    ),
    variants=VARIANTS,
    durations={
        "tiny": (1,),
        "digits": (1, 8),
        "cifar": (1, 4, 16),
        "paper": (1, 10, 100),
    },
    hypotheses=(
        above("13: the large decay above the small one, shortest", LARGE, SMALL, at=0),
        Hypothesis(
            "13: the small decay gains on the large one with duration",
            ((1.0, SMALL, -1), (-1.0, LARGE, -1), (-1.0, SMALL, 0), (1.0, LARGE, 0)),
            paper=PAPER,
        ),
        Hypothesis(
            "6: the best gains with duration",
            ((1.0, "best", -1), (-1.0, "best", 0)),
            paper="flowers: 77.51 to 96.93",
        ),
    ),
    select_on_validation={
        "best": tuple(VARIANTS),
        **{
            f"best of wd={wd:g}": tuple(
                name(t, lr, wd) for t in TEMPERATURES for lr in RATES
            )
            for wd in DECAYS
        },
    },
    grid=("optim.lr", "optim.wd"),
)
