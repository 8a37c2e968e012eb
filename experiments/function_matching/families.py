"""Students of other families under the same teaching."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import large, path_of
from kdjax.config import ModelConfig, Run
from kdjax.experiments import Experiment, Hypothesis


def resnet(scale: str = "digits") -> Run:
    """A residual network."""
    return large(scale)


def mobilenet(scale: str = "digits") -> Run:
    """MobileNetV3 with GroupNorm; on small images the same blocks in `networks.py`."""
    return _student(scale, "mobilenet_v3_large", "mobile")


def vit(scale: str = "digits") -> Run:
    """A vision transformer; on small images with small patches in `networks.py`."""
    return _student(scale, "vit_s16", "vit")


def _student(scale: str, published: str, own: str) -> Run:
    run = large(scale)
    name = published if scale == "paper" else f"{path_of('networks.py')}:{own}"
    model = ModelConfig(name=name, norm="group", resolution=run.model.resolution)
    return dataclasses.replace(run, model=model)


PAPER = {
    "resnet": "80.30 at 300 epochs, 81.54 at 1 200, 82.31 at 9 600",
    "mobilenet": "74.60 at 300 epochs, 76.31 at 1 200, 76.97 at 9 600",
    "vit": "",
}

EXPERIMENT = Experiment(
    claim=(
        "Function matching with patience works for students of every family (arXiv "
        "2106.05237, table 3: ResNet-50 and MobileNetV3)"
    ),
    variants={"resnet": resnet, "mobilenet": mobilenet, "vit": vit},
    # A core took 14 minutes for 2 560 steps of the mobile network's five seeds.
    durations={**common.LARGE, "digits": (1, 4, 16)},
    hypotheses=tuple(
        Hypothesis(
            f"6: {name} gains {words}",
            ((1.0, name, -1), (-1.0, name, before)),
            paper=paper,
        )
        for name, paper in PAPER.items()
        for before, words in (
            (0, "from the shortest duration to the longest"),
            (-2, "from the last lengthening"),
        )
    ),
)
