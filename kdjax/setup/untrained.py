"""Runs that begin with runs that are not trained yet: what fits by shapes alone."""

import dataclasses
from collections.abc import Mapping

from kdjax.config import (
    Custom,
    FromWeights,
    ModelConfig,
    Run,
    members_of,
)
from kdjax.data.datasets import Splits
from kdjax.data.source import Source
from kdjax.setup.dry_run import check_fit
from kdjax.setup.load_data import load_source
from kdjax.setup.load_models import InitialVariables, trace_model
from kdjax.setup.load_teachers import trace_teacher


def fill_models(run: Run, runs: Mapping[str, Run]) -> Run:
    """A run whose networks have the fields of those that they start from.

    runs: those that have no folder yet, by the folders that the run names.
    """

    def fill(config: ModelConfig, network: str = "") -> ModelConfig:
        before = runs.get(config.weights)
        if before is None:
            return config
        its = before.networks[network].model if network else before.model
        return config.filled(dataclasses.asdict(its))

    networks = {
        name: dataclasses.replace(network, model=fill(network.model, network.network))
        for name, network in run.networks.items()
    }
    return dataclasses.replace(run, model=fill(run.model), networks=networks)


def check_untrained(
    run: Run, runs: Mapping[str, Run], splits: Splits | None = None
) -> None:
    """Trace the networks of a run, with shapes for what earlier runs train.

    One whose teacher is published or cached, or whose strategy is the user's own, is
    left to its training: these may need the files of earlier runs, or much memory.

    Args:
      run: with all fields of its models (`fill_models`).
      runs: those that have no folder yet, by the folders that the run names.
      splits: the data set in memory; None for one of files.

    Raises ConfigError naming the field of what does not fit.
    """
    members = [member for _, member in members_of(run.teacher)]
    own = isinstance(run.strategy, Custom) and ":" in run.strategy.function
    if own or run.cache.path or any(isinstance(x, FromWeights) for x in members):
        return
    configs = [run.model, *(x.model for x in run.networks.values())]
    if not all(config.name for config in configs):
        return
    terms = {
        # Projectors are new here, of the same shapes.
        name: dataclasses.replace(term, projector_weights="")
        for name, term in run.terms.items()
    }
    run = dataclasses.replace(run, terms=terms)
    train = load_source(run, "train", splits, outline=True)
    check_fit(
        run,
        train=train,
        student=None,
        teacher=trace_teacher(run, train, runs),
        initial=_trace_frozen(run, train),
        step=False,
    )


def _trace_frozen(run: Run, train: Source) -> dict[str, InitialVariables]:
    """Shapes of the networks of a run that do not learn."""
    found = {}
    for name, network in run.networks.items():
        if network.frozen:
            alone = dataclasses.replace(run, model=network.model, seeds=1)
            bound = trace_model(alone, train.classes, train.shape[-1])
            found[name] = InitialVariables(bound.variables, 0)
    return found
