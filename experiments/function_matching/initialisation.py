"""A student drawn at random, or one that has learnt from labels before."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import WEIGHTS, large, seen
from kdjax.config import Optim, Run, Views, labels_only
from kdjax.experiments import Experiment, Hypothesis, above, ref, widening

# Pretraining uses other images than the distillation that follows.
BEFORE = {
    "tiny": ("train[200:]", 2),
    "digits": ("train[200:]", 1_000),
    "cifar": ("train[1000:45000]", 6_000),
}


def scratch(scale: str = "digits") -> Run:
    """Consistent teaching of a student drawn at random."""
    return seen(large(scale), mode="consistent")


def pretrained(scale: str = "digits") -> Run:
    """Consistent teaching of a student that was trained on labels; at the paper's scale
    that is BiT-M with a new head."""
    run = scratch(scale)
    change = {"weights": ref("pretrained")}
    if scale == "paper":
        change = {"weights": f"{WEIGHTS}/BiT-M-R50x1.npz", "adapt": ("head",)}
    model = dataclasses.replace(run.model, **change)
    return dataclasses.replace(run, model=model)


def before(scale: str = "digits") -> Run:
    """The student's network on labels of images that it is not taught on later."""
    run, (split, steps) = scratch(scale), BEFORE[scale]
    return labels_only(
        run,
        data=dataclasses.replace(run.data, train=split),
        views=Views(mode="consistent", area=(0.25, 1.0), flip=run.views.flip),
        optim=Optim(lr=run.optim.lr, warmup=run.optim.warmup),
        steps=steps,
    )


PAPER = "ImageNet: +2.57 at 30 epochs, +1.38 at 90, -0.04 at 1 200, -0.13 at 4 800"

EXPERIMENT = Experiment(
    claim=(
        "A pretrained student is ahead when training is short and no better when it "
        "is long (arXiv 2106.05237, figure 5 and table 3)"
    ),
    variants={"scratch": scratch, "pretrained": pretrained},
    durations=common.LARGE,
    hypotheses=(
        above(
            "8: pretrained ahead, shortest", "pretrained", "scratch", at=0, paper=PAPER
        ),
        widening("8: scratch catches up", "scratch", "pretrained", paper=PAPER),
        Hypothesis(
            "8: scratch ahead, longest (a tie is as good)",
            ((1.0, "scratch", -1), (-1.0, "pretrained", -1)),
            paper=PAPER,
        ),
    ),
    pretrain={"pretrained": before},
)
