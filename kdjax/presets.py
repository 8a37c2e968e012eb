"""Complete runs by name, to begin with and to change."""

import dataclasses
from typing import Any

from kdjax.config import (
    Data,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    Views,
    labels_only,
)


def digits(**changes: Any) -> Run:
    """Function matching on 200 of scikit-learn's digits, in minutes on a laptop.

    The student has 1,384 parameters and takes 6,400 steps. Its teacher comes first.

    changes: fields of `Run` to replace.
    """
    run = Run(
        name="funmatch",
        workdir="runs/digits",
        seeds=3,
        data=Data(name="digits", train="train[:200]"),
        model=ModelConfig(name="resnet", depth=8, width=2, resolution=8),
        teacher=digits_teacher(),
        views=Views(flip=False),
        terms={"soft": Term(temperature=Scalar(2.0))},
        baselines=("labels", "labels_mixup"),
        optim=Optim(),
        steps=6_400,
        batch=64,
    )
    return dataclasses.replace(run, **changes)


def digits_teacher(**changes: Any) -> TrainFirst:
    """The teacher of `digits`: four times as wide, on all 1,000 training images.

    changes: fields of `TrainFirst` to replace.
    """
    model = ModelConfig(name="resnet", depth=8, width=8, resolution=8)
    return dataclasses.replace(TrainFirst(model), **changes)


def digits_labels(**changes: Any) -> Run:
    """The student of `digits` on labels alone.

    changes: fields of `Run` to replace.
    """
    run = labels_only(digits(), name="train", workdir="runs/train", teacher=None)
    return dataclasses.replace(run, **changes)
