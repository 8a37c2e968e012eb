"""Checks that need no data: names and files of a config."""

import pathlib
from typing import Any

from kdjax.config import (
    ConfigError,
    Custom,
    FromRun,
    FromWeights,
    ModelConfig,
    Run,
    members_of,
)
from kdjax.core import runlog
from kdjax.models import weights, zoo
from kdjax.setup.load_models import UNFINISHED
from kdjax.setup.load_teachers import resolve_folder
from kdjax.strategies import kernels
from kdjax.strategies.choose import find_strategy
from kdjax.strategies.controllers import find_controller
from kdjax.strategies.pairing import expand_pairs
from kdjax.train.trackers import check_installed


def check_names(run: Run, student: Any = None, teacher: Any = None) -> None:
    """Refuse names of models, weights, runs, losses and strategies that are none.

    Packages of trackers must be installed. Reads no data, and traces nothing.

    Args:
      student, teacher: objects from Python, in place of those that the config names.

    Raises:
      ConfigError: naming the field.
    """
    check_installed(run.trackers)
    if student is None:
        _check_model(run.model, "model")
    for name, network in run.networks.items():
        _check_model(network.model, f"networks.{name}.model")
    for field, member in members_of(run.teacher):
        if isinstance(member, FromRun):
            _check_run(resolve_folder(member.run, run.folder), f"{field}.run")
        elif isinstance(member, FromWeights) or teacher is None:
            _check_model(member.model, f"{field}.model")
    if isinstance(run.strategy, Custom):
        find_strategy(run.strategy.function)
        return
    for _, field, term in expand_pairs(run.terms):
        kernels.find_kernel(term, field)
        if term.projector_weights:
            folder = weights.expand_path(term.projector_weights)
            _check_run(folder, f"{field}.projector_weights")
    if run.strategy.controller:
        find_controller(run.strategy, run.terms)


def _check_run(folder: str | pathlib.Path, field: str) -> None:
    """Refuse a folder that is no finished run."""
    try:
        runlog.read_config(folder)
    except runlog.RunFolderError as error:
        raise ConfigError(field, reason=str(error)) from error
    if not runlog.is_finished(folder):
        raise ConfigError(field, reason=f"{folder}: {UNFINISHED}")


def _check_model(config: ModelConfig, field: str) -> None:
    """Refuse a network's name that is none, and weights that are not there."""
    if config.name:
        zoo.find_maker(config, field)
    if config.weights and "://" not in config.weights:
        try:
            weights.find(config.weights)
        except weights.WeightsError as error:
            raise ConfigError(f"{field}.weights", reason=str(error)) from error
