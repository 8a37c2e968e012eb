"""What the experiments of this folder share: one run a scale, and what is seen.

    tiny     two updates, to see that everything is in place
    digits   200 of scikit-learn's digits, 1 384 parameters: minutes on two CPU cores
    cifar    2 000 images of CIFAR-10 under a published ResNet-56 (the folder of its
             weights is the environment variable KDJAX_WEIGHTS): minutes on a GPU
    paper    flowers102 at 128 pixels, BiT-M R152x2 to R50x1, as arXiv 2106.05237 has it
             (the folder of the teachers' weights is KDJAX_WEIGHTS)

A variant is a function of the scale's name. Its updates are those of the shortest run;
longer ones have them multiplied.
"""

import dataclasses
import os
from typing import Any

from kdjax.config import Data, Model, Optim, Run, Scalar, Teacher, Term, Views

WEIGHTS = os.environ.get("KDJAX_WEIGHTS", "../shared/weights")

# Multiples of the shortest run. Of the paper's flowers: 1 000 to 1 000 000 epochs.
DURATIONS = {
    "tiny": (1,),
    "digits": (1, 4, 16, 64),
    "cifar": (1, 4, 16, 64),
    "paper": (1, 10, 100, 1_000),
}


def base(scale: str = "digits") -> Run:
    """Function matching at a scale."""
    return {"tiny": _tiny, "digits": _digits, "cifar": _cifar, "paper": _paper}[scale]()


def seen(run: Run, **views: Any) -> Run:
    """The run with other views; fields as in `kdjax.config.Views`."""
    return dataclasses.replace(run, views=dataclasses.replace(run.views, **views))


def _digits() -> Run:
    """The main job of README, from a 64th of its duration on."""
    return dataclasses.replace(Run(), steps=160, optim=Optim(warmup=50), baselines=())


def _tiny() -> Run:
    run = _digits()
    assert run.teacher is not None
    optim = Optim(warmup=1)
    return dataclasses.replace(
        run,
        steps=2,
        batch=8,
        optim=optim,
        teacher=dataclasses.replace(run.teacher, steps=2, optim=optim),
        checkpoint_every=2,
    )


def _cifar() -> Run:
    teacher = Model(
        name="resnet56",
        norm="batch",
        resolution=32,
        weights=f"{WEIGHTS}/cifar10_resnet56.safetensors",
        pixels="imagenet",
    )
    return Run(
        data=Data("cifar10", "train[:2000]", "train[45000:]", "test"),
        model=Model(name="resnet8", norm="group", resolution=32),
        teacher=Teacher(model=teacher),
        views=Views(),
        terms={"soft": Term(temperature=Scalar(2.0))},
        optim=Optim(lr=3e-3, warmup=50),
        steps=200,
        batch=128,
        baselines=(),
    )


def _paper() -> Run:
    """Flowers102 as in the paper's figure 3; T, rate and decay of its table 4."""
    teacher = Model(
        name="bit_r152x2", resolution=128, weights=f"{WEIGHTS}/flowers102_r152x2.npz"
    )
    return Run(
        data=Data("flowers102", "train", "validation", "test", store=160),
        model=Model(name="bit_r50x1", resolution=128),
        teacher=Teacher(model=teacher),
        views=Views(central=1.25),
        terms={"soft": Term(temperature=Scalar(10.0))},
        optim=Optim(lr=3e-3, wd=3e-4, warmup=1_500),
        steps=1_992,
        batch=512,
        baselines=(),
    )
