"""Checks that need no data: names and files of a config."""

import pathlib
from collections.abc import Mapping
from typing import Any

from kdjax.config import (
    ConfigError,
    Custom,
    FromRun,
    FromWeights,
    ModelConfig,
    Run,
    members_of,
    refuse_references,
)
from kdjax.core import runlog
from kdjax.models import weights, zoo
from kdjax.setup.load_models import UNFINISHED, read_run, require_projector
from kdjax.setup.load_teachers import resolve_folder
from kdjax.strategies import kernels
from kdjax.strategies.choose import find_strategy
from kdjax.strategies.controllers import find_controller
from kdjax.strategies.pairing import expand_pairs
from kdjax.train.trackers import check_installed


def check_names(
    run: Run,
    student: Any = None,
    teacher: Any = None,
    earlier: Mapping[str, Run] | None = None,
) -> None:
    """Refuse names of models, weights, runs, losses and strategies that are none.

    Packages of trackers must be installed. Reads no data, and traces nothing.

    Args:
      student, teacher: objects from Python, in place of those that the config names.
      earlier: runs that are trained before this one, by the folders that it names.

    Raises:
      ConfigError: naming the field.
    """
    earlier = earlier or {}
    refuse_references(run)
    check_installed(run.trackers)
    if student is None:
        _check_model(run.model, "model", earlier)
    for name, network in run.networks.items():
        _check_model(network.model, f"networks.{name}.model", earlier)
    for field, member in members_of(run.teacher):
        if isinstance(member, FromRun) and member.run in earlier:
            continue
        if isinstance(member, FromRun):
            _check_run(resolve_folder(member.run, run.folder), f"{field}.run")
        elif isinstance(member, FromWeights) or teacher is None:
            _check_model(member.model, f"{field}.model")
    for name, field, term in expand_pairs(run.terms):
        if not isinstance(run.strategy, Custom):
            kernels.find_kernel(term, field)
        if term.projector_weights:
            folder = term.projector_weights
            before = earlier.get(folder)
            if before is None:
                folder = weights.expand_path(folder)
                _check_run(folder, f"{field}.projector_weights")
                before = read_run(folder)
            require_projector(before, name, term, field, folder)
    if isinstance(run.strategy, Custom):
        find_strategy(run.strategy.function)
        return
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


def _check_model(
    config: ModelConfig, field: str, earlier: Mapping[str, Run] | None = None
) -> None:
    """Refuse a network's name that is none, and weights that are not there."""
    if config.name:
        zoo.find_maker(config, field)
    is_earlier = config.weights in (earlier or {})
    if config.weights and not is_earlier and "://" not in config.weights:
        try:
            weights.find(config.weights)
        except weights.WeightsError as error:
            raise ConfigError(f"{field}.weights", reason=str(error)) from error
