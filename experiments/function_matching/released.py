"""The runs that the paper's authors released configs of, with every value of them.

At scale `paper` these are the configs themselves, each with its own duration; `tiny`
has their temperature, rate and decay on the digits, to see that they can be set up.
"""

import dataclasses
import functools

from experiments.function_matching.common import WEIGHTS, base, large
from kdjax.config import Data, FromWeights, ModelConfig, Run, Scalar, Term
from kdjax.experiments import Experiment, Hypothesis

# Data, splits, images, the teacher's file.
SETS = {
    "flowers": ("flowers102", "train", "validation", "test", 1_020, "flowers"),
    "pets": ("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test", 3_312, "pet"),
    "food": ("food101", "train[:90%]", "train[90%:]", "validation", 68_175, "food"),
    "sun": ("sun397", "train", "validation", "test", 76_128, "sun"),
}
# Epochs, T, rate, decay.
HOW = {
    "flowers fast": (10_000, 10, 3e-3, 3e-4),
    "flowers medium": (100_000, 1, 1e-3, 1e-4),
    "flowers long": (1_000_000, 1, 3e-4, 1e-5),
    "pets fast": (1_000, 5, 1e-2, 1e-3),
    "pets medium": (3_000, 10, 3e-3, 3e-4),
    "pets long": (30_000, 2, 3e-3, 1e-5),
    "food fast": (100, 10, 1e-2, 1e-3),
    "food medium": (1_000, 10, 1e-3, 3e-4),
    "food long": (3_000, 5, 1e-2, 1e-4),
    "sun fast": (100, 10, 1e-2, 1e-3),
    "sun medium": (1_000, 10, 1e-3, 1e-4),
    "sun long": (3_000, 10, 1e-2, 3e-5),
}


def small(scale: str = "paper", *, name: str) -> Run:
    """One of the small sets, at 128 pixels."""
    epochs, temperature, rate, decay = HOW[name]
    data, train, validation, test, images, file = SETS[name.partition(" ")[0]]
    run = base(scale)
    change = {}
    if scale == "paper":
        weights = f"{WEIGHTS}/R152x2_T_{file}128.npz"
        teacher = ModelConfig(name="bit_r152x2", resolution=128, weights=weights)
        change = {
            "data": Data(data, train, validation, test, store=160),
            "teacher": FromWeights(teacher),
            "steps": round(epochs * images / run.batch),
        }
    return dataclasses.replace(
        run,
        terms={"soft": Term(temperature=Scalar(float(temperature)))},
        optim=dataclasses.replace(run.optim, lr=rate, wd=decay),
        **change,
    )


def imagenet(scale: str = "paper") -> Run:
    """ImageNet for 1 200 epochs, at 224 pixels."""
    run = large(scale)
    return dataclasses.replace(run, steps=367_835) if scale == "paper" else run


PAPER = {
    "flowers": "92.83, 95.54, 96.93",
    "pets": "88.01, 90.08, 91.06",
    "food": "83.29, 86.64, 87.20",
    "sun": "68.28, 73.46, 74.26",
}

EXPERIMENT = Experiment(
    claim=(
        "The released runs: on each set the longer one is better (arXiv 2106.05237, "
        "table 4; big_vision's configs)"
    ),
    variants={
        **{name: functools.partial(small, name=name) for name in HOW},
        "imagenet": imagenet,
    },
    durations={"tiny": (1,), "paper": (1,)},
    hypotheses=tuple(
        Hypothesis(
            f"6: {name} {longer} above {shorter}",
            ((1.0, f"{name} {longer}", 0), (-1.0, f"{name} {shorter}", 0)),
            paper=PAPER[name],
        )
        for name in SETS
        for shorter, longer in (("fast", "medium"), ("medium", "long"))
    ),
)
