"""From a config to data, models, teacher, training step and identity."""

from kdjax.setup.batches import make_batches, place_constants
from kdjax.setup.dry_run import check_fit
from kdjax.setup.early import check_names
from kdjax.setup.load_data import load_source, open_splits
from kdjax.setup.load_models import (
    InitialVariables,
    load_initial,
    load_pretrained,
    load_trained,
    read_run,
    trace_model,
)
from kdjax.setup.load_teachers import (
    cast,
    ensemble_teachers,
    fit_seeds,
    load_teacher,
    teacher_folder,
    teacher_resolutions,
)
from kdjax.setup.measure import make_measure
from kdjax.setup.parts import Parts, make_parts

__all__ = [
    "InitialVariables",
    "Parts",
    "cast",
    "check_fit",
    "check_names",
    "ensemble_teachers",
    "fit_seeds",
    "load_initial",
    "load_pretrained",
    "load_source",
    "load_teacher",
    "load_trained",
    "make_batches",
    "make_measure",
    "make_parts",
    "open_splits",
    "place_constants",
    "read_run",
    "teacher_folder",
    "teacher_resolutions",
    "trace_model",
]
