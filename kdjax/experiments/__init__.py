"""Experiments: claims, the runs that test them, sweeps over the runs, and verdicts.

A file holds `EXPERIMENT = Experiment(...)`; `kdjax sweep FILE` trains and judges it.
Importing this package loads no JAX; `sweep` and `report_sweep` do.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kdjax.experiments.experiment import Experiment, run_folder
from kdjax.experiments.hypothesis import Hypothesis, Metric, above, widening
from kdjax.experiments.loading import experiment_files, load_experiment
from kdjax.experiments.refs import ref

if TYPE_CHECKING:
    from kdjax.experiments.sweeping import SweepError, report_sweep, sweep

__all__ = [
    "Experiment",
    "Hypothesis",
    "Metric",
    "SweepError",
    "above",
    "experiment_files",
    "load_experiment",
    "ref",
    "report_sweep",
    "run_folder",
    "sweep",
    "widening",
]


def __getattr__(name: str) -> Any:
    if name in ("SweepError", "report_sweep", "sweep"):
        module = importlib.import_module("kdjax.experiments.sweeping")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
