"""The capacity gap: teachers of six sizes for one student."""

import functools

from experiments.claims import common
from kdjax.experiments import Experiment, above

# The student's is 2.
WIDTHS = (1, 2, 4, 8, 16, 32)

EXPERIMENT = Experiment(
    claim=(
        "A teacher can be too large for a student, and one that is too small teaches "
        "it nothing (arXiv 1902.03393)"
    ),
    variants={
        "labels": common.labels,
        **{f"width {w}": functools.partial(common.under, width=w) for w in WIDTHS},
    },
    durations=common.DURATIONS,
    hypotheses=(
        above("width 8 above labels", "width 8", "labels", paper=common.NONE),
        above("too small: width 1 no better than labels", "labels", "width 1"),
        above("too small: width 8 above width 1", "width 8", "width 1"),
        above("too large: width 8 above width 32", "width 8", "width 32"),
        above("too large: width 8 above width 16", "width 8", "width 16"),
        above("a teacher of the student's size above labels", "width 2", "labels"),
    ),
)
