"""Self-distillation against the number of labeled images."""

import dataclasses
import functools

from experiments.claims import common
from experiments.stages.born_again import born_again
from kdjax.config import Run, Stages
from kdjax.experiments import Experiment, Hypothesis, above

COUNTS = (50, 200, 800)


def labels(scale: str, count: int) -> Run:
    """The student alone on so many labels."""
    return common.of_images(common.labels(scale), count)


def own(scale: str, count: int) -> Stages:
    """A second generation of the student, both on so many labels."""
    stages = born_again(scale=scale, generations=2)
    runs = {name: common.of_images(run, count) for name, run in stages.runs.items()}
    return dataclasses.replace(stages, runs=runs)


EXPERIMENT = Experiment(
    claim="Self-distillation gains more where there are more labels",
    variants={
        f"{name} {count}": functools.partial(function, count=count)
        for count in COUNTS
        for name, function in {"labels": labels, "self": own}.items()
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(
            above(f"{n} labels: a generation gains", f"self {n}", f"labels {n}")
            for n in COUNTS
        ),
        *(
            Hypothesis(
                f"it gains more with {more} labels than with {less}",
                (
                    (1, f"self {more}", -1),
                    (-1, f"labels {more}", -1),
                    (-1, f"self {less}", -1),
                    (1, f"labels {less}", -1),
                ),
            )
            for less, more in ((50, 200), (200, 800), (50, 800))
        ),
    ),
)
