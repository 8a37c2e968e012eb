"""Configs: frozen dataclasses of plain values. Imports nothing heavy.

The command line is these fields (`kdjax distill --help`), `config.json` in a run folder
is these fields, and an experiment is a function that returns a `Run`.
"""

from kdjax.config.checks import (
    ConfigError,
    beneath,
    is_number,
    near_names,
    require,
    require_folder,
    require_known,
    require_local,
    require_type,
    restore_url,
    suggest,
    to_path,
)
from kdjax.config.data import Data, Mode, Views
from kdjax.config.functions import call, load_config, load_function, source_files
from kdjax.config.model import Adapt, Modality, ModelConfig, Normalization
from kdjax.config.paths import parse_words, set_fields
from kdjax.config.plain import PYTHON, check_types
from kdjax.config.run import (
    HARD,
    SOFT,
    Baseline,
    Run,
    Tracker,
    from_dict,
    labels_only,
    to_dict,
)
from kdjax.config.stages import Stages, name_stages
from kdjax.config.strategy import Custom, Network, Offline
from kdjax.config.teacher import (
    Cache,
    Ensemble,
    FromRun,
    FromWeights,
    Mean,
    MovingAverage,
    TeacherConfig,
    TrainFirst,
    members_of,
    replace_cache,
    replace_published,
    replace_trained,
    trained_first,
)
from kdjax.config.training import (
    Compute,
    Level,
    Optim,
    Option,
    Scalar,
    Term,
    as_names,
)

__all__ = [
    "HARD",
    "PYTHON",
    "SOFT",
    "Adapt",
    "Baseline",
    "Cache",
    "Compute",
    "ConfigError",
    "Custom",
    "Data",
    "Ensemble",
    "FromRun",
    "FromWeights",
    "Level",
    "Mean",
    "Network",
    "Mode",
    "Modality",
    "ModelConfig",
    "MovingAverage",
    "Normalization",
    "Offline",
    "Optim",
    "Option",
    "Run",
    "Scalar",
    "Stages",
    "TeacherConfig",
    "Term",
    "Tracker",
    "TrainFirst",
    "Views",
    "as_names",
    "beneath",
    "call",
    "check_types",
    "from_dict",
    "is_number",
    "labels_only",
    "load_config",
    "load_function",
    "members_of",
    "name_stages",
    "near_names",
    "parse_words",
    "replace_cache",
    "replace_published",
    "replace_trained",
    "require",
    "require_folder",
    "require_known",
    "require_local",
    "require_type",
    "restore_url",
    "set_fields",
    "source_files",
    "suggest",
    "to_dict",
    "to_path",
    "trained_first",
]
