"""An experiment as one value: the runs that are compared, and what is expected."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from kdjax.config import (
    Run,
    Stages,
    call,
    is_number,
    require,
    require_known,
    require_type,
)
from kdjax.experiments.hypothesis import Hypothesis, Metric

Pretraining = Mapping[str, Callable[[str], Run]]
Variants = Mapping[str, Callable[[str], Run | Stages]]

# Names in a sweep's folder that are no variant's: `compiled` (of older sweeps), files,
# `teacher-N`, `stage-N` and `RUN-targets`.
_COMPILED = "compiled"
_NO_RUN = r"\.|(teacher|stage)-\d+$|.*(\.\w+|-targets)$"
# More colors than this are hard to tell apart.
_MOST_COLORS = 4


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A claim, the runs that test it, and the hypotheses by which it is judged.

    A file that holds one, `EXPERIMENT = Experiment(...)`, is trained by `kdjax sweep
    FILE`. Variants and pretraining runs are functions of a scale's name that return a
    `Run`. A sweep trains every variant at every duration, several seeds each. A variant
    of `Stages` is its last stage; equal stages of several variants are trained once.

    Raises:
      ConfigError: a field is invalid; the text names it.
    """

    claim: str
    """The claim, in one sentence."""
    variants: Variants
    """The runs that are compared, by name: functions of the scale."""
    durations: Mapping[str, tuple[int, ...]]
    """By scale, the lengths of its runs as multiples of a variant's own steps, those of
    its last stage. The names of scales are free."""
    hypotheses: tuple[Hypothesis, ...] = ()
    """The expected results, each tested over the seeds."""
    pretrain: Pretraining = dataclasses.field(default_factory=dict)
    """Runs on labels that variants start from or use as teachers (by `ref`): functions
    of the scale. Each is trained once, before the first variant that refers to it."""
    select_on_validation: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    """Groups of variants. The best of a group on the validation split is reported by
    the group's name; the test results of the others are not shown."""
    highlight: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Up to four variants that figures draw in color, and the words at their lines. The
    others are gray. By default those that the hypotheses name most often."""
    grid: tuple[str, ...] = ()
    """Two numeric fields of `Run`, such as ("optim.lr", "optim.wd"), over which the
    variants form a grid. The figure is then a heat map of validation accuracy."""
    path: pathlib.Path = pathlib.Path("experiment.py")
    """The file; `load_experiment` sets it."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """`folder/file`, without the ending."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def folder(self, scale: str) -> pathlib.Path:
        """The default folder of a sweep."""
        return pathlib.Path("runs/sweeps", self.path.stem, scale)

    def times(self, scale: str) -> tuple[int, ...]:
        """The durations at a scale, as multiples of a variant's own steps."""
        require_known(scale, self.durations, "scale")
        return self.durations[scale]

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of results: variants, with each group in place of its members."""
        groups = self.select_on_validation
        members = {name for names in groups.values() for name in names}
        return (*(v for v in self.variants if v not in members), *groups)

    def run(self, variant: str, scale: str, times: int) -> Run:
        """One run: a variant at a scale, or its last stage, its steps multiplied."""
        *_, run = self._stages(variant, scale).values()
        return _with_pace(run, f"{variant} x{times}", times)

    def earlier_stages(self, variant: str, scale: str) -> dict[str, Run]:
        """The stages of a variant before its last one, by name; none without stages."""
        *earlier, _ = self._stages(variant, scale).items()
        return {name: _with_pace(run, name, 1) for name, run in earlier}

    def _stages(self, variant: str, scale: str) -> dict[str, Run]:
        field = f"variants[{variant!r}]"
        value = call(self.variants[variant], field, scale)
        require_type(value, (Run, Stages), field, "a Run, or Stages")
        runs = {"": value} if isinstance(value, Run) else value.runs
        require(bool(runs), field, "at least one stage", "none")
        for name, run in runs.items():
            _check_steps(run, f"{field}.runs.{name}" if name else field)
        return runs

    def steps(self, name: str, scale: str, times: int) -> int:
        """The steps of a variant's run, or of the runs of a group."""
        variant = self.select_on_validation.get(name, (name,))[0]
        return self.run(variant, scale, times).steps

    def pretraining_run(self, name: str, scale: str) -> Run:
        """One of the runs of `pretrain`."""
        require_known(name, self.pretrain, f"ref({name!r})", "a name in `pretrain`")
        field = f"pretrain[{name!r}]"
        run = call(self.pretrain[name], field, scale)
        require_type(run, Run, field, "a Run")
        _check_steps(run, field)
        return _with_pace(dataclasses.replace(run, teacher=None), name, 1)


def _check_steps(run: Run, field: str) -> None:
    ok = type(run.steps) is int and run.steps >= 1
    require(ok, f"{field}.steps", "a whole number >= 1", run.steps)


def _with_pace(run: Run, name: str, times: int) -> Run:
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


def _check(experiment: Experiment) -> None:
    ok = isinstance(experiment.claim, str) and experiment.claim.strip()
    require(bool(ok), "claim", "a sentence", experiment.claim)
    _check_functions("variants", experiment.variants)
    require(bool(experiment.variants), "variants", "at least one", experiment.variants)
    _check_functions("pretrain", experiment.pretrain)
    _check_durations(experiment.durations)
    _check_folders(experiment)
    _check_groups(experiment)
    hypotheses = experiment.hypotheses
    ok = isinstance(hypotheses, Sequence)
    require(ok, "hypotheses", "a tuple of Hypothesis", hypotheses)
    for hypothesis in hypotheses:
        _check_hypothesis(experiment, hypothesis)
    _check_figures(experiment)


def _check_functions(field: str, functions: Any) -> None:
    expected = "a dict of names and functions"
    require(isinstance(functions, Mapping), field, expected, functions)
    for name, function in functions.items():
        ok = isinstance(name, str) and callable(function)
        require(ok, field, expected, functions)


def _check_durations(durations: Any) -> None:
    expected = "a dict of scales, each with rising whole numbers >= 1"
    ok = isinstance(durations, Mapping) and durations
    require(bool(ok), "durations", expected, durations)
    for scale, times in durations.items():
        require(isinstance(scale, str), "durations", "names of scales", scale)
        ok = isinstance(times, Sequence) and times
        ok = ok and all(type(t) is int and t >= 1 for t in times)
        ok = ok and list(times) == sorted(set(times))
        field = f"durations[{scale!r}]"
        require(bool(ok), field, "rising whole numbers >= 1", times)


def _check_folders(experiment: Experiment) -> None:
    """Every run of a sweep needs a folder of its own."""
    taken = {_COMPILED: "the sweep"}
    for folder, field in _folders(experiment):
        expected = (
            "a folder's name, not .NAME, NAME.END, teacher-N, stage-N or NAME-targets"
        )
        valid = re.fullmatch(rf"(?!{_NO_RUN})[^/\\]+", folder)
        require(valid is not None, field, expected, folder)
        other = taken.setdefault(folder, field)
        expected = f"a folder of its own, {other} has {folder}"
        require(other == field, field, expected, folder)


def _folders(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Each folder that a sweep makes, with the field that it belongs to."""
    for name in experiment.pretrain:
        yield name, f"pretrain[{name!r}]"
    every = sorted({t for times in experiment.durations.values() for t in times})
    for variant in experiment.variants:
        for times in every:
            yield run_folder(variant, times), f"variants[{variant!r}]"


def _check_groups(experiment: Experiment) -> None:
    groups = experiment.select_on_validation
    field = "select_on_validation"
    require(isinstance(groups, Mapping), field, "a dict of names and variants", groups)
    for name, group in groups.items():
        field = f"select_on_validation[{name!r}]"
        ok = isinstance(group, Sequence) and not isinstance(group, str) and group
        require(bool(ok), field, "some variants", group)
        free = name not in experiment.variants
        require(free, field, "a name that no variant has", name)
        for variant in group:
            require_known(variant, experiment.variants, field)


def _check_hypothesis(experiment: Experiment, hypothesis: Any) -> None:
    expected = "a tuple of Hypothesis"
    ok = isinstance(hypothesis, Hypothesis)
    require(ok, "hypotheses", expected, experiment.hypotheses)
    field = f"hypotheses[{hypothesis.claim!r}]"
    for name in ("claim", "paper"):
        value = getattr(hypothesis, name)
        require(isinstance(value, str), f"{field}.{name}", "a text", value)
    require_known(hypothesis.metric, get_args(Metric), f"{field}.metric")
    threshold = hypothesis.threshold
    require(is_number(threshold), f"{field}.threshold", "a number", threshold)
    terms = hypothesis.terms
    ok = isinstance(terms, Sequence) and terms and all(map(_is_term, terms))
    expected = "some (factor, variant, index of the duration)"
    require(bool(ok), f"{field}.terms", expected, terms)
    longest = max(len(times) for times in experiment.durations.values())
    for _, variant, at in terms:
        require_known(variant, experiment.reported, field)
        require(-longest <= at < longest, field, "the index of a duration", at)


def _is_term(term: Any) -> bool:
    if not isinstance(term, Sequence) or len(term) != 3:
        return False
    factor, variant, at = term
    return is_number(factor) and isinstance(variant, str) and type(at) is int


def _check_figures(experiment: Experiment) -> None:
    words = experiment.highlight
    ok = isinstance(words, Mapping) and len(words) <= _MOST_COLORS
    ok = ok and all(isinstance(word, str) for word in words.values())
    expected = f"a dict of up to {_MOST_COLORS} variants and their words"
    require(ok, "highlight", expected, words)
    for name in words:
        require_known(name, experiment.reported, "highlight")
    grid = experiment.grid
    ok = grid == () or (isinstance(grid, tuple) and len(grid) == 2)
    require(ok, "grid", "two fields of Run", grid)
