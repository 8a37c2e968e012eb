"""Trackers for the lines of `metrics.jsonl`: TensorBoard, Weights & Biases."""

import importlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from kdjax.config import ConfigError

Line = dict[str, Any]
Write = Callable[[Line], None]


# Of each tracker, its package and the extra that installs it.
PACKAGES = {"tensorboard": ("tensorboardX", "tb"), "wandb": ("wandb", "wandb")}


def _module(name: str) -> Any:
    package, extra = PACKAGES[name]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        install = f"pip install 'kdjax[{extra}]'"
        text = f"{name} needs the package {package}: {install}"
        raise ConfigError("trackers", reason=text) from error


def _scalars(line: Line) -> dict[str, float]:
    """`train/loss` and so on, the mean over seeds."""
    skip = ("kind", "step")
    return {
        f"{line['kind']}/{name}": float(np.mean(value))
        for name, value in line.items()
        if name not in skip
    }


def _tensorboard(folder: pathlib.Path, name: str, config: Line, stack: ExitStack):
    writer = _module("tensorboard").SummaryWriter(str(folder))
    stack.callback(writer.close)

    def write(line: Line) -> None:
        for tag, value in _scalars(line).items():
            writer.add_scalar(tag, value, line["step"])

    return write


def _wandb(folder: pathlib.Path, name: str, config: Line, stack: ExitStack):
    wandb = _module("wandb")
    run = wandb.init(dir=str(folder), name=name, config=config, resume="allow")
    stack.callback(run.finish)
    return lambda line: run.log(_scalars(line), step=line["step"])


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


@contextmanager
def open_trackers(
    names: Sequence[str], folder: pathlib.Path, name: str, config: Line
) -> Iterator[Write]:
    """A function that sends a line of metrics to every tracker named, closed at exit.

    Raises ConfigError naming `trackers` where a package is not installed.
    """
    with ExitStack() as stack:
        writes = [TRACKERS[n](folder, name, config, stack) for n in names]

        def write(line: Line) -> None:
            for each in writes:
                each(line)

        yield write


def check_installed(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker whose package is not installed."""
    for name in names:
        _module(name)
