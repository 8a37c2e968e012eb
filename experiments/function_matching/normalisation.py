"""GroupNorm or BatchNorm in a student that sees mixed images."""

import dataclasses

import common
from common import base

from kdjax.config import Run, above

CLAIM = (
    "Under function matching a student with GroupNorm ends no lower than one with "
    "BatchNorm (arXiv 2106.05237, MobileNetV3 in table 3)"
)
# BiT, the paper's own student, has no form with BatchNorm.
DURATIONS = {k: v for k, v in common.DURATIONS.items() if k != "paper"}


def group(scale: str = "digits") -> Run:
    """GroupNorm."""
    return _with(base(scale), "group")


def batch(scale: str = "digits") -> Run:
    """BatchNorm."""
    return _with(base(scale), "batch")


def _with(run: Run, norm: str) -> Run:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, norm=norm))


VARIANTS = {"group": group, "batch": batch}
EXPECTED = (
    above(
        "14: GroupNorm above BatchNorm, longest",
        "group",
        "batch",
        paper="74.60 against 72.32 at 300 epochs, 76.31 against 73.51 at 1 200",
    ),
)
