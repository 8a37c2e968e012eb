"""Networks that learn together: peers, a learning teacher, early exits."""

import dataclasses
import functools

from experiments.methods import common
from kdjax.config import Network, Run
from kdjax.experiments import Experiment, above

WEAK = "no number for digits; DML on CIFAR-100: 68.99 to 71.19 (arXiv 1706.00384)"


def many(scale: str) -> Run:
    """The student beside a smaller one, under one teacher."""
    run = common.taught(scale, "many_students")
    narrow = dataclasses.replace(run.model, width=1)
    if scale == "cifar":
        narrow = dataclasses.replace(run.model, name="resnet8")
    return dataclasses.replace(run, networks={"small": Network(narrow)})


EXPERIMENT = Experiment(
    claim=(
        "Networks that learn together end above the same student on labels alone "
        "(deep mutual learning, arXiv 1706.00384; Be Your Own Teacher, 1905.08094)"
    ),
    variants={
        "labels": common.labels,
        "hinton": common.hinton,
        "mutual 2": functools.partial(common.alone, name="mutual", peers=2),
        "mutual 4": functools.partial(common.alone, name="mutual", peers=4),
        "online": functools.partial(common.beside_large, name="online"),
        "exits": functools.partial(common.alone, name="deep_to_shallow", norm="group"),
        "many students": many,
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("two peers above labels", "mutual 2", "labels", paper=WEAK),
        above("four peers above two", "mutual 4", "mutual 2"),
        above("a learning teacher above labels", "online", "labels"),
        above("a fixed teacher above a learning one", "hinton", "online"),
        above("early exits above labels", "exits", "labels"),
        above("a student of many above labels", "many students", "labels"),
        above("a student alone above one of many", "hinton", "many students"),
    ),
)
