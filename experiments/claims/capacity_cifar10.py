"""The capacity gap on CIFAR-10, by a published table of pre-activation ResNets.

    kdjax sweep experiments/claims/capacity_cifar10.py --scale cifar --seeds 4

For a GPU. The table is of Distiller (github.com/IntelLabs/distiller), means of four
runs on 50,000 images; 5,000 of these are our validation split. Its last drop of the
rate is to a fifth, ours to a tenth, and its crops are of images padded by four pixels.
`capacity.py` has the same question on the digits.
"""

import dataclasses
import functools

from experiments.methods import common
from kdjax.config import HARD, ModelConfig, Optim, Run, Scalar, Term, TrainFirst, Views
from kdjax.config import labels_only as without_teacher
from kdjax.experiments import Experiment, above
from kdjax.presets import cifar10

# Test accuracy (%) of a student of 20 layers, by the depth of its teacher.
PUBLISHED = {32: 92.74, 44: 92.80, 56: 92.65, 110: 92.77}
ALONE = 92.22
STEPS = 200 * 45_000 // 128
OPTIM = Optim(
    "sgd",
    lr=0.1,
    wd=2e-4,
    clip=0.0,
    warmup=0,
    schedule="steps",
    milestones=(0.4, 0.6, 0.8),
)


def network(depth: int) -> ModelConfig:
    """A pre-activation ResNet of 6n + 2 layers: a wide ResNet of factor 1.

    Those count their two projections of shortcuts too, and have 6n + 4.
    """
    name = f"wrn_{depth + 2}_1"
    return dataclasses.replace(cifar10().model, name=name)


def student(scale: str, teacher: int) -> Run:
    """0.7 KL at T = 5 and 0.3 cross-entropy, under a teacher of so many layers.

    Scale `tiny` has the same terms on two small networks and digits.
    """
    views = Views(mode="consistent", crop="random")
    soft = Term(weight=Scalar(0.7), temperature=Scalar(5.0))
    hard = dataclasses.replace(HARD, weight=Scalar(0.3))
    terms = {"soft": soft, "hard": hard}
    if scale == "tiny":
        return dataclasses.replace(common.base(scale), terms=terms)
    first = TrainFirst(
        network(teacher), train="train[:45000]", steps=STEPS, optim=OPTIM, views=views
    )
    return cifar10(
        model=network(20),
        teacher=first,
        terms=terms,
        views=views,
        optim=OPTIM,
        steps=STEPS,
        baselines=(),
    )


def labels(scale: str) -> Run:
    """The student alone."""
    return without_teacher(student(scale, 20), teacher=None)


EXPERIMENT = Experiment(
    claim="ResNet-44 teaches ResNet-20 better than ResNet-110 does, on CIFAR-10",
    variants={
        "labels": labels,
        **{
            f"under {depth}": functools.partial(student, teacher=depth)
            for depth in PUBLISHED
        },
    },
    durations={"tiny": (1,), "cifar": (1,)},
    hypotheses=(
        above(
            "44 layers teach better than 110",
            "under 44",
            "under 110",
            paper=f"{PUBLISHED[44]} to {PUBLISHED[110]}",
        ),
        *(
            above(
                f"{depth} layers above labels",
                f"under {depth}",
                "labels",
                paper=f"{accuracy} to {ALONE}",
            )
            for depth, accuracy in PUBLISHED.items()
        ),
    ),
)
