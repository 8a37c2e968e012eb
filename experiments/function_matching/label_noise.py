"""Label noise: students on wrong labels, and on teachers with and without them."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import base, path_of
from kdjax.config import (
    HARD,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    TrainFirst,
    Views,
    labels_only,
)
from kdjax.experiments import Experiment, above

SETS = path_of("sets.py")
# Data, and its splits with labels of which a few and of which many are wrong. On the
# digits 20 and 40 % are turned by a fixed permutation; on CIFAR-10 people gave them, 9
# and 40 % wrong (CIFAR-10N; `human_cifar10` in sets.py says where its file comes from).
DIGITS = (f"{SETS}:wrong_digits", "wrong20", "wrong40")
CIFAR = (f"{SETS}:human_cifar10", "aggre", "worse")
CLEAN, FEW, MANY = 0, 1, 2


def labels_clean(scale: str = "digits") -> Run:
    """Labels that are right."""
    return labels_only(_with(base(scale), scale, CLEAN))


def labels_few(scale: str = "digits") -> Run:
    """Labels of which a few are wrong."""
    return labels_only(_with(base(scale), scale, FEW))


def labels_many(scale: str = "digits") -> Run:
    """Labels of which many are wrong."""
    return labels_only(_with(base(scale), scale, MANY))


def mix(scale: str = "digits") -> Run:
    """Function matching, which reads no labels, under a teacher that saw right ones."""
    return _with(base(scale), scale, CLEAN)


def mix_and_labels(scale: str = "digits") -> Run:
    """Half function matching, half labels of which many are wrong."""
    run = _with(base(scale), scale, MANY)
    half = {"weight": Scalar(0.5)}
    soft = dataclasses.replace(run.terms["soft"], **half)
    hard = dataclasses.replace(HARD, **half)
    return dataclasses.replace(run, terms={"soft": soft, "hard": hard})


def misled(scale: str = "digits") -> Run:
    """Function matching under a teacher that learnt from labels many of them wrong, of
    many more images."""
    split = _set(scale)[MANY]
    return _misled(scale, f"{split}[:45000]" if scale == "cifar" else split)


def misled_alike(scale: str = "digits") -> Run:
    """Function matching under a teacher that learnt from the student's own labels, many
    of them wrong."""
    return _misled(scale, _with(base(scale), scale, MANY).data.train)


def _misled(scale: str, split: str) -> Run:
    run = _with(base(scale), scale, MANY)
    if scale == "cifar":
        # The published one cannot be had with wrong labels.
        teacher = TrainFirst(
            ModelConfig(name="resnet20", norm="batch", resolution=32),
            train=split,
            steps=6_000,
            optim=Optim(lr=3e-3, warmup=200),
            views=Views(mode="consistent", area=(0.25, 1.0)),
        )
    else:
        assert isinstance(run.teacher, TrainFirst)
        teacher = dataclasses.replace(run.teacher, train=split)
    return dataclasses.replace(run, teacher=teacher)


def _set(scale: str) -> tuple[str, str, str]:
    name, few, many = CIFAR if scale == "cifar" else DIGITS
    del name
    return "train", few, many


def _with(run: Run, scale: str, wrong: int) -> Run:
    """The same images; the labels of the student's training split with errors."""
    name = (CIFAR if scale == "cifar" else DIGITS)[0]
    split = run.data.train.replace("train", _set(scale)[wrong], 1)
    data = dataclasses.replace(run.data, name=name, train=split)
    return dataclasses.replace(run, data=data)


WRONG = "labels, many wrong"

EXPERIMENT = Experiment(
    claim=(
        "Distillation protects from wrong labels: with a teacher that saw clean "
        "ones, and to a part even with a teacher that learnt from the wrong ones "
        "(ours)"
    ),
    variants={
        "labels": labels_clean,
        "labels, few wrong": labels_few,
        "labels, many wrong": labels_many,
        "mix": mix,
        "mix and labels, many wrong": mix_and_labels,
        "mix, misled teacher": misled,
        "mix, misled teacher of the same images": misled_alike,
    },
    durations={k: v for k, v in common.DURATIONS.items() if k != "paper"},
    hypotheses=(
        above("wrong labels cost accuracy, longest", "labels", WRONG),
        above("and more, the more are wrong", "labels, few wrong", WRONG),
        above("mix above labels, many wrong, shortest", "mix", WRONG, at=0),
        above("mix above labels, many wrong, longest", "mix", WRONG),
        above(
            "a teacher beside them protects, longest",
            "mix and labels, many wrong",
            WRONG,
        ),
        above("but less than without them", "mix", "mix and labels, many wrong"),
        above(
            "a teacher that learnt from them teaches better than they do, longest",
            "mix, misled teacher",
            WRONG,
        ),
        above("but worse than one that did not", "mix", "mix, misled teacher"),
        above(
            "so does one that learnt from the very labels, longest",
            "mix, misled teacher of the same images",
            WRONG,
        ),
    ),
    highlight={
        "mix": "function matching",
        "mix, misled teacher": "misled teacher",
        "labels": "labels",
        "labels, many wrong": "labels, many wrong",
    },
)
