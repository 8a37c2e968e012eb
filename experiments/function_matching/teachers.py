"""One teacher, a better one, and the mean of both."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import WEIGHTS, large, resnet
from kdjax.config import (
    Ensemble,
    FromRun,
    FromWeights,
    Mean,
    ModelConfig,
    Optim,
    Run,
    TrainFirst,
    labels_only,
)
from kdjax.experiments import Experiment, above, ref

# The better teacher, where it is trained first: deeper than the other.
DEEP = ModelConfig("resnet", depth=14, width=8, resolution=8)


def first(scale: str = "digits") -> Run:
    """One teacher."""
    run = large(scale)
    if scale == "cifar":
        return dataclasses.replace(run, teacher=FromWeights(resnet(32)))
    return run


def stronger(scale: str = "digits") -> Run:
    """A better one: deeper; at the paper's scale the same at 384 pixels, whose images
    are kept larger and cropped on the device."""
    run = _large_images(large(scale))
    return dataclasses.replace(run, teacher=_stronger(scale))


def logits(scale: str = "digits") -> Run:
    """Both: the mean of their logits, as in the paper."""
    return _both(scale, "logits")


def probabilities(scale: str = "digits") -> Run:
    """Both: the mean of their probabilities, as in the paper's released trainer."""
    return _both(scale, "probabilities")


def deep(scale: str = "digits") -> Run:
    """Trains the better teacher, on what the first one is trained on."""
    run = large(scale)
    teacher_config = run.teacher
    assert isinstance(teacher_config, TrainFirst)
    return labels_only(
        run,
        data=dataclasses.replace(run.data, train=teacher_config.train),
        model=DEEP,
        views=teacher_config.views,
        optim=teacher_config.optim if scale == "tiny" else Optim(),
        steps=teacher_config.steps,
    )


def _stronger(scale: str) -> FromRun | FromWeights:
    if scale == "cifar":
        return FromWeights(resnet(56))
    if scale == "paper":
        weights = f"{WEIGHTS}/R152x2_T_384.npz"
        return FromWeights(ModelConfig("bit_r152x2", resolution=384, weights=weights))
    return FromRun(ref("deep"))


def _large_images(run: Run) -> Run:
    """ImageNet kept large enough for 384 pixels, and cropped where several teachers can
    be shown each crop at their own resolution."""
    if run.data.name != "imagenet2012":
        return run
    data = dataclasses.replace(run.data, store=448, crop="device")
    return dataclasses.replace(run, data=data)


def _both(scale: str, mean: Mean) -> Run:
    run = _large_images(first(scale))
    assert isinstance(run.teacher, FromWeights | TrainFirst)
    members = run.teacher, _stronger(scale)
    return dataclasses.replace(run, teacher=Ensemble(members, mean=mean))


STRONGER = "T384 over T224: +0.16 at 300 epochs, +0.28, +0.15, +0.33 at 9 600"
BOTH = "both over T224: +0.58 at 1 200 epochs, +0.53 at 4 800, +0.51 at 9 600"

EXPERIMENT = Experiment(
    claim=(
        "A better teacher makes a better student, and the mean of two a still better "
        "one, however long it trains (arXiv 2106.05237, tables 1 and 3)"
    ),
    variants={
        "first": first,
        "stronger": stronger,
        "mean of logits": logits,
        "mean of probabilities": probabilities,
    },
    durations=common.LARGE,
    hypotheses=(
        *(
            above(f"9: {name} above first, {words}", name, "first", at=at, paper=paper)
            for name, paper in (
                ("stronger", STRONGER),
                ("mean of logits", BOTH),
                ("mean of probabilities", BOTH),
            )
            for at, words in ((0, "shortest"), (-2, "last but one"), (-1, "longest"))
        ),
        above(
            "9: mean of logits above stronger, longest",
            "mean of logits",
            "stronger",
            paper="82.82 against 82.64 at 9 600 epochs",
        ),
    ),
    pretrain={"deep": deep},
)
