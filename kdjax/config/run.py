"""One training, complete."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from kdjax.config.checks import require
from kdjax.config.data import Data, Views
from kdjax.config.model import Model
from kdjax.config.plain import check_types, from_plain, to_plain
from kdjax.config.strategy import Custom, Offline
from kdjax.config.teacher import Teacher
from kdjax.config.training import Compute, Optim, Scalar, Term

Baseline = Literal["labels", "labels_mixup"]
Tracker = Literal["tensorboard", "wandb"]

SOFT = Term("softmax_kl")
HARD = Term("hard_cross_entropy", teacher="labels")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, complete: with the data at hand it can be run again from this."""

    name: str = "funmatch"
    """What tables and figures call this run."""
    workdir: str = "runs/digits"
    """Run folder: config, metrics, checkpoints, summary, curves, report."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """Number of seeds, trained side by side in one program: seed, seed + 1, ..."""
    data: Data = Data()
    model: Model = Model()
    """The model that is trained."""
    teacher: Teacher | None = Teacher()
    views: Views = Views(flip=False)
    terms: dict[str, Term] = dataclasses.field(
        default_factory=lambda: {"soft": Term(temperature=Scalar(2.0))}
    )
    """The loss: named terms, weighted and added."""
    strategy: Offline | Custom = Offline()
    """How the networks are trained: by these terms, or by a function of your own."""
    baselines: tuple[Baseline, ...] = ("labels", "labels_mixup")
    """`kdjax distill` also trains these label-only runs with the same model, schedule
    and number of views, for comparison."""
    optim: Optim = Optim()
    steps: int = 6_400
    """Updates. Patience is the point: on 200 images these are 2 048 passes."""
    batch: int = 64
    """Images an update, over all devices."""
    evaluate_every: int = 800
    """Steps between evaluations on the validation split."""
    checkpoint_every: int = 800
    """Steps between checkpoints."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[Tracker, ...] = ()
    """Where these lines go as well (extras `tb` and `wandb`)."""
    compute: Compute = Compute()

    def check(self) -> None:
        """Raise `ConfigError` for the first field that cannot be run."""
        check_types(self)
        require(bool(self.name), "name", "a name", self.name)
        require(bool(self.workdir), "workdir", "a folder", self.workdir)
        require(0 <= self.seed < 2**31, "seed", "0 <= seed < 2^31", self.seed)
        counts = "seeds", "steps", "batch", "evaluate_every", "checkpoint_every"
        for field in (*counts, "log_every"):
            value = getattr(self, field)
            require(value >= 1, field, "at least 1", value)
        for part in (self.data, self.model, self.views, self.compute):
            part.check()
        self.optim.check("optim", self.steps)
        if self.teacher is not None:
            self.teacher.check()
            crops = self.teacher.cache.crops
            ok = not crops or self.views.mode == "fixed"
            want = "0 unless views.mode is fixed"
            require(ok, "teacher.cache.crops", want, crops)
            epochs = self.teacher.cache.epochs
            ok = not epochs or self.views.mode != "fixed"
            want = "0 with views.mode fixed, which has one target per image"
            require(ok, "teacher.cache.epochs", want, epochs)
            self._check_apart(self.teacher.cache.path)
        self.strategy.check()
        self._check_terms()
        if self.teacher is not None:
            self._check_temperature(self.teacher)

    def _check_terms(self) -> None:
        require(bool(self.terms), "terms", "at least one term", self.terms)
        for name, term in self.terms.items():
            term.check(f"terms.{name}")
            if self.teacher is not None or isinstance(self.strategy, Custom):
                continue
            ok, want = term.teacher == "labels", "labels, without a teacher"
            require(ok, f"terms.{name}.teacher", want, term.teacher)
            want = "none, without a teacher"
            weights = term.example_weights
            require(not weights, f"terms.{name}.example_weights", want, weights)

    @property
    def uses_teacher(self) -> bool:
        """Whether the strategy reads the teacher's targets."""
        if isinstance(self.strategy, Custom):
            return self.teacher is not None
        return any(term.uses_teacher for term in self.terms.values())

    @property
    def folder(self) -> pathlib.Path:
        """`workdir`, with ~ replaced by the user's home."""
        return pathlib.Path(self.workdir).expanduser()

    @property
    def temperature(self) -> float | None:
        """That at which all terms read the teacher's logits. None where it changes,
        differs between them, or is the default of a loss or a strategy's own. Terms
        that a weight of 0 leaves out do not count."""
        if isinstance(self.strategy, Custom):
            return None
        reading = [term for term in self.terms.values() if term.teacher == "logits"]
        levels = {_temperature(term) for term in reading if term.counts} or {1.0}
        return levels.pop() if len(levels) == 1 else None

    @property
    def mean_at(self) -> float | None:
        """The temperature at which several teachers' probabilities are averaged; None
        where it is that of a loss which has not one."""
        return (self.teacher.mean_at if self.teacher else 0.0) or self.temperature

    def _check_temperature(self, teacher: Teacher) -> None:
        """What is taken at the temperature of the loss needs there to be one."""
        ok, also = self.temperature is not None, "or terms of one constant temperature"
        top_k, mean = teacher.cache.top_k, teacher.mean
        want = f"0 (all classes), {also}"
        require(ok or not top_k, "teacher.cache.top_k", want, top_k)
        want = f"logits, {also}, or a teacher.mean_at"
        ok = self.mean_at is not None or mean != "probabilities"
        require(ok, "teacher.mean", want, mean)

    def _check_apart(self, store: str) -> None:
        """A store beneath the run folder would make it another's, and the reverse."""
        if not store or "://" in store:
            return
        a = pathlib.Path(store).expanduser().resolve()
        b = self.folder.resolve()
        apart = not (a.is_relative_to(b) or b.is_relative_to(a))
        want = f"a folder neither in workdir {self.workdir!r} nor around it"
        require(apart, "teacher.cache.path", want, store)


def _temperature(term: Term) -> float | None:
    """The constant temperature of a term; None where it is not known here."""
    if term.temperature is None:
        return 1.0 if term.loss == "softmax_kl" else None
    return term.temperature.value if term.temperature.end is None else None


def labelled(run: Run, **changes: Any) -> Run:
    """The same run taught by labels alone; `changes` replace further fields."""
    plain = {"terms": {"hard": HARD}, "strategy": Offline(), "baselines": ()}
    return dataclasses.replace(run, **{**plain, **changes})


def to_dict(run: Any) -> dict[str, Any]:
    """A config as plain values, as it stands in `config.json`.

    A function passed from Python becomes `python:NAME`.
    """
    return json.loads(json.dumps(to_plain(run)))


# Keys of `config.json` that are no fields of a config (`kdjax.setup.identity`).
_NO_FIELDS = ("given", "content")


def from_dict(values: Mapping[str, Any]) -> Run:
    """The inverse of `to_dict`, also of all that `config.json` holds.

    A missing field has its default; unknown and ill-typed ones are errors.
    """
    return from_plain(Run, {k: v for k, v in values.items() if k not in _NO_FIELDS})
