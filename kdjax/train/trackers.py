"""Trackers for the lines of `metrics.jsonl`: TensorBoard, Weights & Biases."""

import importlib
import pathlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from kdjax.config import ConfigError
from kdjax.core import runlog

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


class _Training(NamedTuple):
    """The training whose lines are tracked: arguments of `open_trackers`."""

    folder: pathlib.Path
    name: str
    config: Line
    start: int


def _tensorboard(training: _Training, stack: ExitStack) -> Write:
    # Lines after the last checkpoint are written again: TensorBoard drops the first.
    options = {"purge_step": training.start + 1}
    writer = _module("tensorboard").SummaryWriter(str(training.folder), **options)
    stack.callback(writer.close)

    def write(line: Line) -> None:
        for tag, value in _scalars(line).items():
            writer.add_scalar(tag, value, line["step"])

    return write


def _wandb(training: _Training, stack: ExitStack) -> Write:
    wandb = _module("wandb")
    folder, name, config, _ = training
    identity = {"id": _wandb_id(folder), "resume": "allow"}
    run = wandb.init(dir=str(folder), name=name, config=config, **identity)
    stack.callback(run.finish)
    # A resumed run of W&B cannot go back. What it has is bitwise what comes again.
    first = run.starting_step

    def write(line: Line) -> None:
        if line["step"] >= first:
            run.log(_scalars(line), step=line["step"])

    return write


def _wandb_id(folder: pathlib.Path) -> str:
    """The id of a run folder at W&B, drawn at its first start and kept in it."""
    path = folder / "wandb.json"
    if not path.exists():
        runlog.write_json(path, {"id": secrets.token_hex(8)})
    name = runlog.read_json(path).get("id")
    if not isinstance(name, str):
        text = f"{path}: expected the id of a run at W&B; without it another begins"
        raise runlog.RunFolderError(text)
    return name


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


@contextmanager
def open_trackers(
    names: Sequence[str],
    folder: pathlib.Path,
    name: str,
    config: Line,
    start: int = 0,
) -> Iterator[Write]:
    """A function that sends a line of metrics to every tracker named, closed at exit.

    Args:
      folder: the run folder. It keeps the id of the run at W&B, so that a run that is
        interrupted stays one run there.
      name, config: of the run.
      start: the step that the run resumes at. TensorBoard replaces what came after it.

    Raises ConfigError naming `trackers` where a package is not installed.
    """
    with ExitStack() as stack:
        training = _Training(folder, name, config, start)
        writes = [TRACKERS[n](training, stack) for n in names]

        def write(line: Line) -> None:
            for each in writes:
                each(line)

        yield write


def check_installed(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker whose package is not installed."""
    for name in names:
        _module(name)
