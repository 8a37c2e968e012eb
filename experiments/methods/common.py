"""The base runs of this folder, one a scale, and their variants.

    tiny     two steps, as a sanity check
    digits   200 of scikit-learn's digits, 1,384 parameters, 2,560 steps
    cifar    CIFAR-10, ResNet-20 under a ResNet-56 that is trained first; for a GPU

Every variant has the same student, images, views and steps. Options of a method are
those of its paper; where a weight is chosen, it is chosen on validation.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdjax.config import (
    HARD,
    Custom,
    ModelConfig,
    Network,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    labels_only,
)
from kdjax.presets import cifar10, digits

Variant = Callable[[str], Run]
# Variants of a method by name, of which validation chooses one.
Groups = Mapping[str, Mapping[str, Variant]]
DURATIONS = {"tiny": (1,), "digits": (1,), "cifar": (1,)}


def base(scale: str) -> Run:
    """Student, teacher, data and schedule at a scale; one random crop, no mixup."""
    run = {"tiny": _tiny, "digits": _digits, "cifar": cifar10}[scale]()
    views = dataclasses.replace(run.views, mode="consistent")
    return dataclasses.replace(run, views=views, baselines=())


def labels(scale: str) -> Run:
    """The student alone, on labels."""
    return labels_only(base(scale), teacher=None)


def hinton(scale: str) -> Run:
    """0.9 KL at temperature 4 and 0.1 cross-entropy of the labels."""
    soft = Term("softmax_kl", weight=Scalar(0.9), temperature=Scalar(4.0))
    hard = dataclasses.replace(HARD, weight=Scalar(0.1))
    return dataclasses.replace(base(scale), terms={"soft": soft, "hard": hard})


def taught(scale: str, name: str, **options: Any) -> Run:
    """A strategy with the teacher of the base."""
    strategy = Custom(name, options=options)
    return dataclasses.replace(base(scale), strategy=strategy)


def method(name: str, **options: Any) -> Variant:
    """The variant of a strategy with the teacher of the base."""
    return functools.partial(taught, name=name, **options)


def weights(name: str, values: Sequence[float], **options: Any) -> dict[str, Variant]:
    """The variants of a strategy at several weights."""
    return {f"weight {x:g}": method(name, weight=x, **options) for x in values}


def variants_of(groups: Groups) -> dict[str, Variant]:
    """The variants of all groups: `GROUP, MEMBER`."""
    return {
        f"{group}, {name}": variant
        for group, members in groups.items()
        for name, variant in members.items()
    }


def groups_of(groups: Groups) -> dict[str, tuple[str, ...]]:
    """The names of the variants of each group, for `select_on_validation`."""
    return {
        group: tuple(f"{group}, {name}" for name in members)
        for group, members in groups.items()
    }


def alone(scale: str, name: str, **options: Any) -> Run:
    """A strategy without a teacher, on labels."""
    return dataclasses.replace(labels(scale), strategy=Custom(name, options=options))


def beside_large(scale: str, name: str, **options: Any) -> Run:
    """A strategy in which the teacher's network learns beside the student."""
    return dataclasses.replace(
        alone(scale, name, **options), networks={"large": Network(large(scale))}
    )


def large(scale: str) -> ModelConfig:
    """The network of the teacher."""
    teacher = base(scale).teacher
    assert isinstance(teacher, TrainFirst)
    return teacher.model


def _digits() -> Run:
    return digits(steps=2_560)


def _tiny() -> Run:
    run, optim = digits(steps=2, batch=8, checkpoint_every=2), Optim(warmup=1)
    assert isinstance(run.teacher, TrainFirst)
    teacher = dataclasses.replace(run.teacher, steps=2, optim=optim)
    return dataclasses.replace(run, optim=optim, teacher=teacher)
