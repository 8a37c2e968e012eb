"""The weight of the teacher beside labels: too much, and too little."""

import functools

from experiments.claims import common
from kdjax.experiments import Experiment, above

WEIGHTS = (0.1, 0.5, 0.9, 1.0)

EXPERIMENT = Experiment(
    claim=(
        "Too much weight on the teacher generalizes worse, and too little gains nothing"
    ),
    variants={
        "labels": common.labels,
        **{
            f"weight {w:g}": functools.partial(common.weighted, weight=w)
            for w in WEIGHTS
        },
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("too much: 0.9 above 1", "weight 0.9", "weight 1"),
        above("too much: 0.5 above 0.9", "weight 0.5", "weight 0.9"),
        above("too little: 0.1 no better than labels", "labels", "weight 0.1"),
        above("too little: 0.5 above 0.1", "weight 0.5", "weight 0.1"),
    ),
)
