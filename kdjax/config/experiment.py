"""An experiment: runs that are compared, and what is expected to come out."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Literal

from kdjax.config.checks import ConfigError, require
from kdjax.config.functions import call, load_module
from kdjax.config.run import Run

Scale = Literal["tiny", "digits", "cifar", "paper"]
Metric = Literal["accuracy", "agreement", "kl", "train_loss"]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """That a sum of results is above 0, seed by seed."""

    claim: str
    """What it says, in words."""
    terms: tuple[tuple[float, str, int], ...]
    """(factor, variant, index of the duration; -1 is the longest)."""
    metric: Metric = "accuracy"
    """accuracy, agreement and kl are of the test split, kl in nats; train_loss is the
    mean of the last tenth of the training."""
    paper: str = ""
    """What the paper has, in its own numbers."""


def above(
    claim: str,
    larger: str,
    smaller: str,
    *,
    at: int = -1,
    metric: Metric = "accuracy",
    paper: str = "",
) -> Expectation:
    """That one variant has the larger value at one duration."""
    terms = ((1.0, larger, at), (-1.0, smaller, at))
    return Expectation(claim, terms, metric, paper)


def widening(
    claim: str, larger: str, smaller: str, *, metric: Metric = "accuracy", paper=""
) -> Expectation:
    """That one variant's lead grows from the shortest duration to the longest."""
    last = above(claim, larger, smaller, metric=metric, paper=paper)
    first = tuple((-factor, name, 0) for factor, name, _ in last.terms)
    return dataclasses.replace(last, terms=last.terms + first)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a file of experiments says: its `CLAIM`, `VARIANTS`, `DURATIONS` and
    `EXPECTED`."""

    path: pathlib.Path
    """The file."""
    claim: str
    """What it is about, in a sentence."""
    variants: Mapping[str, Callable[[str], Run]]
    """What is compared: functions of the scale."""
    durations: Mapping[str, tuple[int, ...]]
    """By scale, how many times a variant's own updates its runs have."""
    expected: tuple[Expectation, ...]
    """What is to come out."""

    @property
    def name(self) -> str:
        """`folder/file`, without the ending."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def folder(self, scale: str) -> pathlib.Path:
        """Where a sweep's run folders go unless it is told."""
        return pathlib.Path("runs/sweeps", self.path.stem, scale)

    def times(self, scale: str) -> tuple[int, ...]:
        """How many times a variant's own number of updates its runs have."""
        known = sorted(self.durations)
        require(scale in self.durations, "scale", f"one of {known}", scale)
        return self.durations[scale]

    def run(self, variant: str, scale: str, times: int) -> Run:
        """One run: a variant at a scale, its updates multiplied."""
        run = call(self.variants[variant], f"variants[{variant!r}]", scale)
        require(isinstance(run, Run), f"variants[{variant!r}]", "a Run", run)
        steps = run.steps * times
        often = max(steps // 10, 1)
        return dataclasses.replace(
            run,
            name=f"{variant} x{times}",
            steps=steps,
            baselines=(),
            evaluate_every=often,
            checkpoint_every=max(often, 200),
            log_every=min(run.log_every, often),
        )


def run_folder(variant: str, times: int) -> str:
    """The name of a run's folder in its sweep."""
    return f"{variant.replace('/', '-').replace(' ', '-')}-x{times}"


def load_experiment(file: str | pathlib.Path) -> Experiment:
    """The experiment in a Python file.

    Raises:
        ConfigError: the file is missing, cannot be imported, or lacks a part.
    """
    path = pathlib.Path(file)
    module = load_module(str(path), "experiment")
    parts = []
    for name in ("CLAIM", "VARIANTS", "DURATIONS", "EXPECTED"):
        if not hasattr(module, name):
            raise ConfigError(f"experiment: expected {name} in {path}, got none")
        parts.append(getattr(module, name))
    found = Experiment(path.resolve(), *parts)
    longest = max(len(times) for times in found.durations.values())
    for expected in found.expected:
        for _, variant, at in expected.terms:
            field = f"expected[{expected.claim!r}]"
            known = ", ".join(found.variants)
            require(variant in found.variants, field, f"one of {known}", variant)
            require(-longest <= at < longest, field, "the index of a duration", at)
    return found


def find_experiments(folder: str | pathlib.Path) -> list[Experiment]:
    """The experiments in a folder and those beneath it, by name."""
    root = pathlib.Path(folder)
    require(root.is_dir(), "folder", "a folder of experiments", str(folder))
    files = [f for f in sorted(root.rglob("*.py")) if "\nEXPECTED" in f.read_text()]
    return [load_experiment(file) for file in files]
