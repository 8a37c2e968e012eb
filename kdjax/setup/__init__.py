"""Where the parts meet: from a config to sources, models, teacher and step."""

from kdjax.setup.feeds import make_batches, place_given
from kdjax.setup.fit import check_fit
from kdjax.setup.measure import make_measure
from kdjax.setup.parts import Parts, make_parts, make_plan, student_variables
from kdjax.setup.runs import (
    baseline_run,
    load_source,
    read_run,
    teacher_run,
)
from kdjax.setup.trained import (
    at_precision,
    average,
    fit_seeds,
    load_trained,
    model_of,
    published,
)

__all__ = [
    "Parts",
    "at_precision",
    "baseline_run",
    "check_fit",
    "fit_seeds",
    "load_source",
    "load_trained",
    "make_batches",
    "make_measure",
    "make_parts",
    "make_plan",
    "model_of",
    "place_given",
    "published",
    "read_run",
    "student_variables",
    "teacher_run",
    "average",
]
