"""Temperatures of the softened targets."""

import dataclasses

from experiments.function_matching import common
from experiments.function_matching.common import base
from kdjax.config import Run, Scalar, Term
from kdjax.experiments import Experiment


def at(temperature: float, scale: str) -> Run:
    term = Term(temperature=Scalar(temperature))
    return dataclasses.replace(base(scale), terms={"soft": term})


def t1(scale: str = "digits") -> Run:
    """Temperature 1."""
    return at(1.0, scale)


def t2(scale: str = "digits") -> Run:
    """Temperature 2."""
    return at(2.0, scale)


def t5(scale: str = "digits") -> Run:
    """Temperature 5."""
    return at(5.0, scale)


def t10(scale: str = "digits") -> Run:
    """Temperature 10."""
    return at(10.0, scale)


EXPERIMENT = Experiment(
    claim=(
        "No temperature is best at every duration (arXiv 2106.05237, table 4, where "
        "the best of 1, 2, 5 and 10 follows no trend)"
    ),
    variants={"T=1": t1, "T=2": t2, "T=5": t5, "T=10": t10},
    durations=common.DURATIONS,
    # The paper claims no order: the tables are the result.
)
