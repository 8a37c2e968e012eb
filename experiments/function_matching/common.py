"""The base runs of this folder's experiments, one a scale, and changes of their views.

    tiny     two steps, as a sanity check
    digits   200 of scikit-learn's digits, 1 384 parameters: minutes on two CPU cores
    cifar    1 000 images of CIFAR-10 under a published ResNet-56 (the folder of its
             weights is the environment variable KDJAX_WEIGHTS): hours on CPU
    paper    flowers102 at 128 pixels, BiT-M R152x2 to R50x1, as arXiv 2106.05237 has it
             (the folder of the teachers' weights is KDJAX_WEIGHTS)

`large` is the same with ImageNet in place of flowers102, where the paper used that.

A variant is a function of the scale's name. Its steps are those of the shortest run;
longer runs have multiples of them.
"""

import dataclasses
import os
import pathlib
from typing import Any

from kdjax.config import (
    Cache,
    Data,
    FromWeights,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    Views,
    replace_cache,
)
from kdjax.presets import digits

WEIGHTS = "$KDJAX_WEIGHTS"

# Multiples of the shortest run. Of the paper's flowers: 1 000 to 1 000 000 epochs.
DURATIONS = {
    "tiny": (1,),
    "digits": (1, 4, 16, 64),
    "cifar": (1, 4, 16, 64),
    "paper": (1, 10, 100, 1_000),
}
# Of ImageNet: 30, 300, 1 200, 4 800 and 9 600 epochs.
LARGE = {**DURATIONS, "paper": (1, 10, 40, 160, 320)}


def base(scale: str = "digits") -> Run:
    """Function matching at a scale."""
    return {"tiny": _tiny, "digits": _digits, "cifar": _cifar, "paper": _paper}[scale]()


def large(scale: str = "digits") -> Run:
    """Function matching at a scale, the paper's on ImageNet."""
    return _imagenet() if scale == "paper" else base(scale)


def resnet(depth: int) -> ModelConfig:
    """A published network of CIFAR-10 (arXiv 1512.03385) with its weights."""
    return ModelConfig(
        name=f"resnet{depth}",
        norm="batch",
        resolution=32,
        weights=f"{WEIGHTS}/cifar10_resnet{depth}.safetensors",
        normalization="imagenet",
    )


def path_of(name: str) -> str:
    """The path of a file of this folder, relative to the working directory."""
    return os.path.relpath(pathlib.Path(__file__).parent / name)


def seen(run: Run, **views: Any) -> Run:
    """The run with other views; fields as in `kdjax.config.Views`."""
    return dataclasses.replace(run, views=dataclasses.replace(run.views, **views))


def fixed(run: Run, scale: str, **views: Any) -> Run:
    """The run under constant targets. Those of large teachers are computed once and
    stored."""
    run = seen(run, mode="fixed", **views)
    return stored(run) if scale in ("cifar", "paper") else run


def stored(run: Run, **how: Any) -> Run:
    """The run with stored targets; fields as in `kdjax.config.Cache`."""
    # A sweep gives every store a folder of its own beside the run's.
    cache = Cache(path=f"{run.workdir}-targets", **how)
    return dataclasses.replace(run, teacher=replace_cache(run.teacher, cache))


def _digits() -> Run:
    """The main job of README, from a 64th of its duration on."""
    return digits(steps=160, optim=Optim(warmup=50), baselines=())


def _tiny() -> Run:
    run, optim = _digits(), Optim(warmup=1)
    assert isinstance(run.teacher, TrainFirst)
    return dataclasses.replace(
        run,
        steps=2,
        batch=8,
        optim=optim,
        teacher=dataclasses.replace(run.teacher, steps=2, optim=optim),
        checkpoint_every=2,
    )


def _cifar() -> Run:
    return Run(
        data=Data("cifar10", "train[:1000]", "train[48000:]", "test"),
        model=ModelConfig(name="resnet8", norm="group", resolution=32),
        teacher=FromWeights(resnet(56)),
        views=Views(),
        terms={"soft": Term(temperature=Scalar(2.0))},
        optim=Optim(lr=3e-3, warmup=50),
        steps=160,
        batch=64,
    )


def _paper() -> Run:
    """Flowers102 as in the paper's figure 3; T, rate and decay of its table 4."""
    teacher = ModelConfig(
        name="bit_r152x2",
        resolution=128,
        weights=f"{WEIGHTS}/R152x2_T_flowers128.npz",
    )
    return Run(
        data=Data("flowers102", "train", "validation", "test", store=160),
        model=ModelConfig(name="bit_r50x1", resolution=128),
        teacher=FromWeights(teacher),
        views=Views(evaluation_crop=1.25),
        terms={"soft": Term(temperature=Scalar(10.0))},
        optim=Optim(lr=3e-3, wd=3e-4, warmup=1_500),
        steps=1_992,
        batch=512,
        baselines=(),
    )


def _imagenet() -> Run:
    """ImageNet for 30 epochs; the values of the paper's listing 1."""
    teacher = ModelConfig(
        name="bit_r152x2", resolution=224, weights=f"{WEIGHTS}/R152x2_T_224.npz"
    )
    return Run(
        data=Data(
            "imagenet2012",
            "train[:98%]",
            "train[98%:]",
            "validation",
            store=256,
            pipeline="host",
            crop="host",
        ),
        model=ModelConfig(name="bit_r50x1", resolution=224),
        teacher=FromWeights(teacher),
        views=Views(evaluation_crop=1.143),
        terms={"soft": Term(temperature=Scalar(1.0))},
        optim=Optim(lr=0.03, wd=3e-4, warmup=5_000),
        steps=9_196,
        batch=4_096,
        baselines=(),
    )
