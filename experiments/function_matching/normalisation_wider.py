"""GroupNorm and BatchNorm in wider students and at a larger rate: a study of what
`normalisation.py` shows at scale digits, whose student has groups of two channels."""

import dataclasses
import functools

from experiments.function_matching.normalisation import batch, group
from kdjax.config import Run
from kdjax.experiments import Experiment, above

NORMS = {"group": group, "batch": batch}


def wider(scale: str = "digits", *, norm: str, width: int) -> Run:
    """A student of more channels; 8 are those of the teacher."""
    run = NORMS[norm](scale)
    return dataclasses.replace(run, model=dataclasses.replace(run.model, width=width))


def faster(scale: str = "digits", *, norm: str) -> Run:
    """Three times the rate."""
    run = NORMS[norm](scale)
    return dataclasses.replace(
        run, optim=dataclasses.replace(run.optim, lr=3 * run.optim.lr)
    )


WIDTHS = (4, 8)

EXPERIMENT = Experiment(
    claim=(
        "GroupNorm's deficit on small students goes with more channels or a larger "
        "rate (a study of MobileNetV3 in table 3 of arXiv 2106.05237)"
    ),
    variants={
        **{
            f"{norm} width {width}": functools.partial(wider, norm=norm, width=width)
            for width in WIDTHS
            for norm in NORMS
        },
        **{f"{norm} lr x3": functools.partial(faster, norm=norm) for norm in NORMS},
    },
    durations={"tiny": (1,), "digits": (64,)},
    hypotheses=tuple(
        above(
            f"14: GroupNorm above BatchNorm, {what}", f"group {what}", f"batch {what}"
        )
        for what in (*(f"width {width}" for width in WIDTHS), "lr x3")
    ),
)
