"""Weights and temperatures that follow the run, and gradients without conflicts."""

import dataclasses
import functools

from experiments.methods import common
from kdjax.config import Offline, Run
from kdjax.experiments import Experiment, above

STRATEGIES = {
    "temperature in a band": Offline(controller="keep_divergence"),
    # The student agrees with its teacher on four fifths of the digits' random crops.
    "stop at agreement": Offline(
        controller="stop_at_agreement", controller_options={"agreement": 0.75}
    ),
    "equal magnitudes": Offline(controller="equal_magnitudes"),
    "without conflicts": Offline(project_gradients=True),
}


def with_strategy(scale: str, strategy: Offline) -> Run:
    """Hinton's loss, adapted."""
    return dataclasses.replace(common.hinton(scale), strategy=strategy)


EXPERIMENT = Experiment(
    claim="Adapting Hinton's loss to the state of the student ends above its constants",
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        **{
            name: functools.partial(with_strategy, strategy=strategy)
            for name, strategy in STRATEGIES.items()
        },
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(above(f"{name} above labels", name, "labels") for name in STRATEGIES),
        *(above(f"{name} above constants", name, "hinton") for name in STRATEGIES),
    ),
)
