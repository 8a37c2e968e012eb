"""From a config to data, models, teacher, training step and identity."""

from kdjax.setup.batches import make_batches, place_constants
from kdjax.setup.dry_run import StepCost, check_fit, image_flops, measure_step
from kdjax.setup.early import check_names
from kdjax.setup.first_values import check_losses, check_outputs, has_own_losses
from kdjax.setup.load_data import (
    call_own,
    load_source,
    warn_of_equal_images,
    warn_of_gaps,
    warn_of_missing_classes,
    warn_of_shared_images,
)
from kdjax.setup.load_models import (
    InitialVariables,
    complete_model,
    complete_models,
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
from kdjax.setup.measure import make_measure, predict_all
from kdjax.setup.parts import Parts, make_parts
from kdjax.setup.untrained import check_untrained, fill_models

__all__ = [
    "InitialVariables",
    "Parts",
    "StepCost",
    "call_own",
    "cast",
    "check_fit",
    "check_losses",
    "check_names",
    "check_outputs",
    "check_untrained",
    "complete_model",
    "complete_models",
    "ensemble_teachers",
    "fill_models",
    "fit_seeds",
    "has_own_losses",
    "image_flops",
    "load_initial",
    "load_pretrained",
    "load_source",
    "load_teacher",
    "load_trained",
    "make_batches",
    "make_measure",
    "make_parts",
    "measure_step",
    "place_constants",
    "predict_all",
    "read_run",
    "teacher_folder",
    "teacher_resolutions",
    "trace_model",
    "warn_of_equal_images",
    "warn_of_gaps",
    "warn_of_missing_classes",
    "warn_of_shared_images",
]
