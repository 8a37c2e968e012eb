"""The variants of both tables on teacher features: `features_resnet`, `_plain`."""

import functools

from experiments.cifar10_slides import slides
from kdjax.experiments import above


def variants(pair: str) -> dict:
    """Labels, hints at two places, and relations of the weights in common use."""
    return {
        "labels": functools.partial(slides.labels, pair),
        "hint middle": functools.partial(slides.hint, pair, place="middle"),
        "hint final": functools.partial(slides.hint, pair, place="final"),
        "rkd distance": functools.partial(slides.relation, pair, distance=25.0),
        "rkd angle": functools.partial(slides.relation, pair, angle=50.0),
        "rkd both": functools.partial(slides.relation, pair, distance=25.0, angle=50.0),
    }


def expected(own: str, middle: str, final: str) -> tuple:
    """own: the slides' student alone; middle, final: with hints there."""
    none = "RKD is among the slides' papers, without a number"
    return (
        above(
            "hints at the middle above labels",
            "hint middle",
            "labels",
            paper=f"{middle} against {own}",
        ),
        above(
            "labels above hints at the final layer",
            "labels",
            "hint final",
            paper=f"{own} against {final}",
        ),
        *(
            above(f"{name} above labels", name, "labels", paper=none)
            for name in ("rkd distance", "rkd angle", "rkd both")
        ),
    )
