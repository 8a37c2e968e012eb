"""Function matching on a part of CIFAR-10: a published ResNet-56 teaches students.

Needs the data as TFDS prepares it (its error says how) and cifar10_resnet56.safetensors
in the folder that the environment variable KDJAX_WEIGHTS names. 5 000 training images,
as the paper's sets are small; the last 5 000 are the validation split (the teacher was
trained on both), the test split is whole. CONFIG is this file:

    kdjax distill --config CONFIG:resnet20

The teacher's targets ahead of time, and images decoded as they are needed:

    kdjax cache-targets --config CONFIG:resnet20_cached
    kdjax distill --config CONFIG:resnet20_cached
    kdjax distill --config CONFIG:resnet20 --data.pipeline host --workdir runs/streamed
"""

import dataclasses

from kdjax.config import (
    Cache,
    Data,
    FromWeights,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    Term,
    Views,
)

WEIGHTS = "$KDJAX_WEIGHTS"

TEACHER = FromWeights(
    ModelConfig(
        name="resnet56",
        norm="batch",
        resolution=32,
        weights=f"{WEIGHTS}/cifar10_resnet56.safetensors",
        normalization="imagenet",
    )
)


def _run(student: str) -> Run:
    return Run(
        name=student,
        workdir=f"runs/cifar10-{student}",
        data=Data("cifar10", "train[:5000]", "train[45000:]", "test"),
        model=ModelConfig(name=student, norm="group", resolution=32),
        teacher=TEACHER,
        views=Views(mode="function_matching", area=(0.25, 1.0)),
        terms={"soft": Term(temperature=Scalar(2.0))},
        baselines=(),
        optim=Optim(lr=3e-3, wd=1e-4, warmup=200),
        steps=2_000,
        batch=64,
        seeds=1,
        evaluate_every=500,
        checkpoint_every=500,
    )


def _cached(run: Run) -> Run:
    cache = Cache(path=f"{run.workdir}-targets")
    return dataclasses.replace(
        run,
        name=f"{run.name}-cached",
        workdir=f"{run.workdir}-cached",
        teacher=dataclasses.replace(TEACHER, cache=cache),
    )


def resnet20() -> Run:
    """ResNet-20 with GroupNorm, the teacher live."""
    return _run("resnet20")


def resnet20_cached() -> Run:
    """The same, its targets replayed from a store."""
    return _cached(_run("resnet20"))


def resnet8() -> Run:
    """ResNet-8 with GroupNorm, the teacher live."""
    return _run("resnet8")


def resnet8_cached() -> Run:
    """The same, its targets replayed from a store."""
    return _cached(_run("resnet8"))
