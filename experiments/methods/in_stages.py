"""Methods of several runs one after another: hints, flows, generations, assistants.

A student that is trained in two stages has half of the steps in each. Teachers,
assistants and earlier generations have steps of their own.
"""

import dataclasses
import functools
from collections.abc import Callable

from experiments.methods import common
from experiments.stages.assistants import assistants, ladder, plain
from experiments.stages.born_again import born_again, cwtm, dkpp
from experiments.stages.dense_flow import dense_flow
from experiments.stages.factor_transfer import factor_transfer
from experiments.stages.fitnets import fitnets
from experiments.stages.fsp import fsp
from experiments.stages.label_free import label_free
from experiments.stages.labels_then_soft import labels_then_soft
from experiments.stages.moonshine import moonshine
from experiments.stages.multi_head_graph import multi_head_graph
from experiments.stages.tune import tune
from kdjax.config import Run, Stages
from kdjax.experiments import Experiment, above

NONE = "no number for digits"
FSP = f"{NONE}; CIFAR-10, 8 layers: 87.91 to 88.70 (Yim et al., CVPR 2017)"
FITNETS = f"{NONE}; CIFAR-10: above its teacher, 91.61 to 90.18 (arXiv 1412.6550)"


def halved(scale: str, function: Callable[..., Stages]) -> Stages:
    """Stages whose last two share the steps and the warm-up of one run."""
    stages = function(scale=scale)
    runs = dict(stages.runs)
    for name in [*runs][-2:]:
        run = runs[name]
        optim = dataclasses.replace(run.optim, warmup=run.optim.warmup // 2)
        runs[name] = dataclasses.replace(run, steps=run.steps // 2, optim=optim)
    return dataclasses.replace(stages, runs=runs)


def swept(scale: str) -> Stages:
    """Densely distilled flow: three stages of flows and one of labels, equally long."""
    stages = dense_flow(scale=scale)
    runs = dict(stages.runs)
    for name in [*runs][1:]:
        run = runs[name]
        optim = dataclasses.replace(run.optim, warmup=run.optim.warmup // 4)
        steps = max(1, run.steps // 4)
        runs[name] = dataclasses.replace(run, steps=steps, optim=optim)
    return dataclasses.replace(stages, runs=runs)


def cheap(scale: str, weight: float = 1000.0) -> Stages:
    """Moonshine, with bottlenecks alone on the digits: groups are slow on CPU."""
    convs = "g4b2" if scale == "cifar" else "b4"
    return moonshine(scale=scale, convs=convs, weight=weight)


def cheap_alone(scale: str) -> Run:
    """The network of Moonshine on labels alone."""
    return cheap(scale).runs["labels"]


def staged(scale: str, function: Callable[..., Stages], **options: object) -> Stages:
    """The stages of a function at a scale."""
    return function(scale=scale, **options)


HALVED = {
    "fitnets": fitnets,
    "fsp": fsp,
    "labels, then soft": labels_then_soft,
    "tune": tune,
}
WHOLE = {
    "born again 1": functools.partial(born_again, generations=2),
    "born again 2": functools.partial(born_again, generations=3),
    "cwtm": cwtm,
    "dkpp": dkpp,
    "no assistant": plain,
    "ladder": ladder,
    "factor transfer": factor_transfer,
}

# The weight of the authors' code, and smaller ones.
MOONSHINE = {
    f"cheap convolutions, weight {x:g}": functools.partial(cheap, weight=x)
    for x in (1000.0, 100.0, 10.0)
}

EXPERIMENT = Experiment(
    claim=(
        "Training in stages ends above the same student on labels alone: hints, flows, "
        "generations, assistants (arXiv 1412.6550, CVPR 2017, 1805.04770, 1902.03393)"
    ),
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        **{n: functools.partial(halved, function=f) for n, f in HALVED.items()},
        **{n: functools.partial(staged, function=f) for n, f in WHOLE.items()},
        **MOONSHINE,
        "dense flow": swept,
        "cheap convolutions, labels": cheap_alone,
        "assistant": functools.partial(staged, function=assistants),
        "label-free": functools.partial(halved, function=label_free),
        "multi-head graph": functools.partial(staged, function=multi_head_graph),
    },
    select_on_validation={"cheap convolutions, chosen": tuple(MOONSHINE)},
    durations=common.DURATIONS,
    hypotheses=(
        above("hints first above labels", "fitnets", "labels", paper=FITNETS),
        above("hints first above Hinton's loss", "fitnets", "hinton", paper=NONE),
        above("flows first above labels", "fsp", "labels", paper=FSP),
        above("dense flow above labels", "dense flow", "labels", paper=NONE),
        above("dense flow above one flow", "dense flow", "fsp"),
        above("factors above labels", "factor transfer", "labels", paper=NONE),
        above(
            "Moonshine's attention above the same cheap network on labels",
            "cheap convolutions, chosen",
            "cheap convolutions, labels",
            paper=NONE,
        ),
        above("soft targets after labels above labels", "labels, then soft", "labels"),
        above("tuning on own predictions above labels", "tune", "labels"),
        above("one generation above labels", "born again 1", "labels", paper=NONE),
        above("a second generation above one", "born again 2", "born again 1"),
        above("CWTM above labels", "cwtm", "labels", paper=NONE),
        above("DKPP above labels", "dkpp", "labels", paper=NONE),
        above("one assistant above none", "assistant", "no assistant", paper=NONE),
        above("the ladder above no assistant", "ladder", "no assistant", paper=NONE),
        above(
            "features without labels first above labels",
            "label-free",
            "labels",
            paper=NONE,
        ),
        above("graphs of heads above labels", "multi-head graph", "labels", paper=NONE),
    ),
)
