"""Commands that start no job: lists, and the preparation of data."""

import os
from typing import Annotated

import tyro

from kdjax.cli.arguments import fail
from kdjax.config import ConfigError
from kdjax.experiments import (
    Experiment,
    experiment_files,
    load_experiment,
    run_folder,
)

Name = Annotated[str, tyro.conf.Positional]


def experiments(folder: Name = "experiments") -> None:
    """The experiments of a folder: claims, commands, hours, progress.

    Args:
        folder: Where the files of experiments are.
    """
    broken, unmeasured = [], False
    for file in experiment_files(folder):
        try:
            experiment = load_experiment(file)
            states = [_state(experiment, scale) for scale in experiment.durations]
        except ConfigError as error:
            broken.append(f"{file}: {error}")
        else:
            title = f"{experiment.name}: {experiment.claim}"
            print("\n  ".join([title, *states]))
            unmeasured |= any("hours not measured" in state for state in states)
    if unmeasured:
        print("One finished run (--variants NAME --times N) measures the hours.")
    if broken:
        fail("\n  ".join(broken))


def _state(experiment: Experiment, scale: str) -> str:
    """An experiment's command at a scale, its hours and its progress."""
    from kdjax.experiments.costs import describe_costs

    place = os.path.relpath(experiment.path)
    folders = [
        run_folder(variant, times)
        for variant in experiment.variants
        for times in experiment.times(scale)
    ]
    root = experiment.folder(scale)
    done = sum((root / name / "summary.json").is_file() for name in folders)
    cost = describe_costs(experiment, scale)
    state = f"{done} finished" if done else "not begun"
    return f"kdjax sweep {place} --scale {scale}  ({cost}; {state})"


def models(name: Name = "") -> None:
    """The names of the networks, for --model.name and --teacher.model.name.

    Args:
        name: A part of a name, such as resnet.
    """
    from kdjax.models.zoo import list_models

    print(list_models(name))


def strategies(name: Name = "") -> None:
    """The strategies for --strategy.function.

    Args:
        name: One of them, to be described in full.
    """
    from kdjax.strategies import registry

    print(registry.describe(name) if name else registry.list_strategies())


def prepare_data(name: Name, data_dir: str = "") -> None:
    """Download a data set, and prepare it by TFDS.

    Args:
        name: A data set of TFDS, such as cifar10.
        data_dir: Name of the TFDS data sets; by default TFDS_DATA_DIR, or that of
            TFDS.
    """
    from kdjax.data.prepare import prepare

    print(prepare(name, data_dir))
