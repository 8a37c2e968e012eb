"""Several kinds of knowledge together, and each alone."""

import dataclasses
import functools

from experiments.claims import common
from kdjax.config import HARD, Run, Scalar, Term
from kdjax.experiments import Experiment, above

# Weights in common use.
KINDS = {
    "responses": {"soft": Term(weight=Scalar(0.9), temperature=Scalar(4.0))},
    "features": {
        "hint": Term(
            "hint_l2", Scalar(100.0), student="stage2", teacher="stage2", projector=True
        )
    },
    "relations": {
        "distance": Term(
            "rkd_distance", Scalar(25.0), student="embedding", teacher="embedding"
        ),
        "angle": Term(
            "rkd_angle", Scalar(50.0), student="embedding", teacher="embedding"
        ),
    },
}


def together(scale: str, kinds: tuple[str, ...]) -> Run:
    """Cross-entropy of the labels, and the terms of some kinds."""
    terms = {"hard": HARD}
    for kind in kinds:
        terms |= KINDS[kind]
    return dataclasses.replace(common.base(scale), terms=terms)


EXPERIMENT = Experiment(
    claim=(
        "Responses, features and relations of a teacher together beat each kind alone"
    ),
    variants={
        "labels": common.labels,
        **{kind: functools.partial(together, kinds=(kind,)) for kind in KINDS},
        "responses and features": functools.partial(
            together, kinds=("responses", "features")
        ),
        "all": functools.partial(together, kinds=tuple(KINDS)),
    },
    durations=common.DURATIONS,
    hypotheses=(
        *(above(f"{kind} above labels", kind, "labels") for kind in KINDS),
        *(above(f"all above {kind} alone", "all", kind) for kind in KINDS),
        above("features add to responses", "responses and features", "responses"),
    ),
)
