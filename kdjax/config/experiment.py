"""An experiment: runs that are compared, and what is expected to come out."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from kdjax.config.checks import ConfigError, is_number, require
from kdjax.config.functions import call, load_module
from kdjax.config.run import Run

Scale = Literal["tiny", "digits", "cifar", "paper"]
Metric = Literal["accuracy", "agreement", "kl", "train_loss"]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """That a sum of results is above a number, seed by seed."""

    claim: str
    """What it says, in words."""
    terms: tuple[tuple[float, str, int], ...]
    """(factor, variant, index of the duration; -1 is the longest)."""
    metric: Metric = "accuracy"
    """accuracy, agreement and kl are of the test split, kl in nats; train_loss is the
    mean of the last tenth of the training."""
    paper: str = ""
    """What the paper has, in its own numbers."""
    than: float = 0.0
    """The number, in the metric's own unit: an accuracy of 0.1, for example, by
    chance."""


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


# What a sweep's folder holds of its own: files, `teacher-N`, `RUN-targets` and this.
_COMPILED = "compiled"
_NO_RUN = r"\.|teacher-\d+$|.*(\.\w+|-targets)$"

# Where a config names a folder, this and a name is a run of the experiment's own.
_BESIDE = "sweep:"


def beside(name: str) -> str:
    """The folder of one of an experiment's `FIRST` runs, for `teacher.run`,
    `teacher.also` or `model.weights` of a variant; a sweep fills it in."""
    return _BESIDE + name


def runs_beside(value: Any) -> set[str]:
    """The names of the `FIRST` runs that a config names."""
    found: set[str] = set()

    def note(name: str) -> str:
        found.add(name)
        return name

    _each_beside(value, note)
    return found


def put_beside(value: Any, root: pathlib.Path) -> Any:
    """The same config, its `FIRST` runs in a sweep's folder."""
    return _each_beside(value, lambda name: str(root / name))


def _each_beside(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        is_one = value.startswith(_BESIDE)
        return change(value.removeprefix(_BESIDE)) if is_one else value
    if isinstance(value, dict):
        return {k: _each_beside(v, change) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_each_beside(v, change) for v in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **_each_beside(fields, change))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a file of experiments says: its `CLAIM`, `VARIANTS`, `DURATIONS` and
    `EXPECTED`, and where it needs them `FIRST` and `CHOICES`."""

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
    first: Mapping[str, Callable[[str], Run]] = dataclasses.field(default_factory=dict)
    """Runs on labels that variants begin from or are taught by (`beside`), functions of
    the scale. Each is trained once, before the first variant that names it."""
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Variants of which the best on the validation split stands for all, by the name it
    then has; of the others a sweep's report shows no test result."""

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

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of results: variants, and the choice in place of those it is of."""
        left_out = {name for names in self.choices.values() for name in names}
        return (*(v for v in self.variants if v not in left_out), *self.choices)

    def run(self, variant: str, scale: str, times: int) -> Run:
        """One run: a variant at a scale, its updates multiplied."""
        field = f"VARIANTS[{variant!r}]"
        run = _called(self.variants[variant], field, scale)
        return _paced(run, f"{variant} x{times}", times)

    def first_run(self, name: str, scale: str) -> Run:
        """One of the runs that others begin from or are taught by."""
        want = f"{name!r}, which a variant begins from or is taught by"
        require(name in self.first, "FIRST", want, ", ".join(self.first) or None)
        run = _called(self.first[name], f"FIRST[{name!r}]", scale)
        return _paced(dataclasses.replace(run, teacher=None), name, 1)


def _called(function: Callable[[str], Run], field: str, scale: str) -> Run:
    """The run that a function of the scale returns, with a number of updates."""
    run = call(function, field, scale)
    require(isinstance(run, Run), field, "a Run", run)
    ok = type(run.steps) is int and run.steps >= 1
    require(ok, f"{field}.steps", "a whole number >= 1", run.steps)
    return run


def _paced(run: Run, name: str, times: int) -> Run:
    steps = run.steps * times
    often = max(steps // 10, 1)
    return dataclasses.replace(
        run,
        name=name,
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
        ConfigError: the file is missing, cannot be imported, lacks a part, or has one
            that cannot be run, named.
    """
    path = pathlib.Path(file)
    require(path.suffix == ".py", "experiment", "a .py file", str(file))
    module = load_module(str(path), "experiment")
    parts = []
    for name in ("CLAIM", "VARIANTS", "DURATIONS", "EXPECTED"):
        if not hasattr(module, name):
            raise ConfigError(f"experiment: expected {name} in {path}, got none")
        parts.append(getattr(module, name))
    more = {k.lower(): getattr(module, k, {}) for k in ("FIRST", "CHOICES")}
    found = Experiment(path.resolve(), *parts, **more)
    _check(found)
    return found


def _check(found: Experiment) -> None:
    ok = isinstance(found.claim, str) and found.claim.strip()
    require(bool(ok), "CLAIM", "a sentence", found.claim)
    _check_functions("VARIANTS", found.variants)
    require(bool(found.variants), "VARIANTS", "at least one", found.variants)
    _check_functions("FIRST", found.first)
    _check_durations(found.durations)
    _check_folders(found)
    ok = isinstance(found.choices, Mapping)
    require(ok, "CHOICES", "a dict of names and variants", found.choices)
    for name, choice in found.choices.items():
        field, known = f"CHOICES[{name!r}]", ", ".join(found.variants)
        ok = isinstance(choice, Sequence) and not isinstance(choice, str) and choice
        require(bool(ok), field, "some variants", choice)
        require(name not in found.variants, field, "a name that no variant has", name)
        for variant in choice:
            require(variant in found.variants, field, f"one of {known}", variant)
    ok = isinstance(found.expected, Sequence)
    require(ok, "EXPECTED", "a tuple of Expectation", found.expected)
    for expected in found.expected:
        _check_expected(found, expected)


def _check_functions(field: str, functions: Any) -> None:
    want = "a dict of names and functions"
    require(isinstance(functions, Mapping), field, want, functions)
    for name, function in functions.items():
        require(isinstance(name, str) and callable(function), field, want, functions)


def _check_durations(durations: Any) -> None:
    want = "a dict of scales, each with some whole numbers >= 1 that rise"
    ok = isinstance(durations, Mapping) and durations
    require(bool(ok), "DURATIONS", want, durations)
    for scale, times in durations.items():
        field = f"DURATIONS[{scale!r}]"
        require(scale in get_args(Scale), field, f"one of {get_args(Scale)}", scale)
        ok = isinstance(times, Sequence) and times
        ok = ok and all(type(t) is int and t >= 1 for t in times)
        ok = ok and list(times) == sorted(set(times))
        require(bool(ok), field, "whole numbers >= 1 that rise", times)


def _check_folders(found: Experiment) -> None:
    """Whether each run of a sweep has a folder of its own."""
    taken = {_COMPILED: "the sweep"}
    for folder, whose in _folders(found):
        want = "the name of a folder, not .NAME, NAME.END, teacher-N nor NAME-targets"
        plain = re.fullmatch(rf"(?!{_NO_RUN})[^/\\]+", folder)
        require(plain is not None, whose, want, folder)
        other = taken.setdefault(folder, whose)
        want = f"a folder of its own, {other} has {folder}"
        require(other == whose, whose, want, folder)


def _folders(found: Experiment) -> Iterator[tuple[str, str]]:
    """Each folder that a sweep makes, and the field that it is of."""
    for name in found.first:
        yield name, f"FIRST[{name!r}]"
    every = sorted({t for times in found.durations.values() for t in times})
    for variant in found.variants:
        for times in every:
            yield run_folder(variant, times), f"VARIANTS[{variant!r}]"


def _check_expected(found: Experiment, expected: Any) -> None:
    want = "a tuple of Expectation"
    require(isinstance(expected, Expectation), "EXPECTED", want, found.expected)
    field, known = f"EXPECTED[{expected.claim!r}]", get_args(Metric)
    for name in ("claim", "paper"):
        value = getattr(expected, name)
        require(isinstance(value, str), f"{field}.{name}", "a text", value)
    ok = expected.metric in known
    require(ok, f"{field}.metric", f"one of {', '.join(known)}", expected.metric)
    require(is_number(expected.than), f"{field}.than", "a number", expected.than)
    terms = expected.terms
    ok = isinstance(terms, Sequence) and terms and all(map(_is_term, terms))
    want = "some (factor, variant, index of the duration)"
    require(bool(ok), f"{field}.terms", want, terms)
    longest = max(len(times) for times in found.durations.values())
    for _, variant, at in expected.terms:
        shown = ", ".join(found.shown)
        require(variant in found.shown, field, f"one of {shown}", variant)
        require(-longest <= at < longest, field, "the index of a duration", at)


def _is_term(term: Any) -> bool:
    if not isinstance(term, Sequence) or len(term) != 3:
        return False
    factor, variant, at = term
    return is_number(factor) and isinstance(variant, str) and type(at) is int


def experiment_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The files of experiments in a folder and those beneath it, by name: those with a
    `CLAIM` or something `EXPECTED`, complete or not."""
    root = pathlib.Path(folder)
    require(root.is_dir(), "folder", "a folder of experiments", str(folder))
    part = re.compile(rb"^(CLAIM|EXPECTED)\b", re.MULTILINE)
    found = [f for f in sorted(root.rglob("*.py")) if part.search(f.read_bytes())]
    want = "a folder with files of experiments (CLAIM, VARIANTS, DURATIONS, EXPECTED)"
    require(bool(found), "folder", want, str(folder))
    return found
