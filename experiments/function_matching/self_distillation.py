"""A student of its teacher's own architecture."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import base, resnet, seen
from kdjax.config import FromWeights, Run, TrainFirst
from kdjax.experiments import Experiment, Hypothesis, above

RESNET20 = FromWeights(resnet(20))


def smaller(scale: str = "digits") -> Run:
    """Function matching of the student of the other experiments.

    The teacher of scale `cifar` is a ResNet-20, which a twin can follow on two cores;
    its shortcuts are held as projections, which the twin has to learn.
    """
    run = base(scale)
    return dataclasses.replace(run, teacher=RESNET20) if scale == "cifar" else run


def mix(scale: str = "digits") -> Run:
    """Function matching of a twin: the teacher's network, drawn anew."""
    run = smaller(scale)
    assert isinstance(run.teacher, FromWeights | TrainFirst)
    model = dataclasses.replace(run.teacher.model, weights="")
    return dataclasses.replace(run, model=model)


def consistent(scale: str = "digits") -> Run:
    """Consistent teaching of a twin."""
    return seen(mix(scale), mode="consistent")


EXPERIMENT = Experiment(
    claim=(
        "A student that could be its teacher becomes it: with duration, agreement on "
        "held-out images rises and the divergence falls (what arXiv 2106.05237 is "
        "after)"
    ),
    variants={"twin same/ic": consistent, "twin mix": mix, "student mix": smaller},
    durations=common.DURATIONS,
    hypotheses=(
        *(
            Hypothesis(
                f"15: the {name} agrees more when trained longer",
                ((1.0, name, -1), (-1.0, name, 0)),
                "agreement",
            )
            for name in ("twin same/ic", "twin mix")
        ),
        *(
            Hypothesis(
                f"15: the {name} is nearer in KL when trained longer",
                ((1.0, name, 0), (-1.0, name, -1)),
                "kl",
            )
            for name in ("twin same/ic", "twin mix")
        ),
        above(
            "15: the twin agrees more than a smaller student",
            "twin mix",
            "student mix",
            metric="agreement",
        ),
    ),
    highlight={
        "twin mix": "twin, function matching",
        "twin same/ic": "twin, consistent teaching",
        "student mix": "smaller student",
    },
)
