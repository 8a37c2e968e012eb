"""One training, complete."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from kdjax.config.bounds import LARGEST, AtLeastOne, Count, Length, Size, Text
from kdjax.config.checks import ConfigError, require, require_run_folder
from kdjax.config.data import Data, Views
from kdjax.config.model import ModelConfig
from kdjax.config.plain import check_types, from_plain, to_plain
from kdjax.config.strategy import Custom, Network, Offline
from kdjax.config.teacher import Cache, Ensemble, TeacherConfig
from kdjax.config.training import Compute, Optim, Skip, Term
from kdjax.config.upgrade import upgrade

Baseline = Literal["labels", "labels_mixup"]
Tracker = Literal["tensorboard", "wandb"]

# Fields of a line of the log: no term and no metric has these names.
RESERVED = ("kind", "step", "seconds", "images_per_second", "loss", "skipped")
SOFT = Term("softmax_kl")
HARD = Term("hard_cross_entropy", teacher="labels")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, complete: with the data at hand it can be run again from this.

    `data.name`, `model.name` and `steps` have no default; `kdjax.presets` has complete
    runs to begin with.
    """

    name: Text = "student"
    """Name of this run in tables and figures."""
    workdir: Text = "runs/student"
    """Run folder: config, metrics, checkpoints, summary, curves, report."""
    seed: Count = 0
    """First seed."""
    seeds: Size = 1
    """Number of seeds, trained side by side in one program: seed, seed + 1, ..."""
    data: Data = Data()
    model: ModelConfig = ModelConfig()
    """The model that is trained."""
    teacher: TeacherConfig | None = None
    """The teacher; None trains on labels."""
    views: Views = Views()
    terms: dict[str, Term] = dataclasses.field(default_factory=lambda: {"soft": SOFT})
    """The loss: named terms, weighted and added."""
    strategy: Offline | Custom = Offline()
    """Training of the networks: by these terms, or by a function of your own."""
    networks: dict[str, Network] = dataclasses.field(default_factory=dict)
    """Networks of the strategy beside the student and the teacher, by name."""
    baselines: tuple[Baseline, ...] = ()
    """`kdjax distill` also trains these label-only runs with the same model, schedule
    and number of views, for comparison."""
    optim: Optim = Optim()
    skip: Skip = Skip()
    steps: Length = 0
    """Steps of training."""
    batch: AtLeastOne = 64
    """Images a step, over all devices."""
    evaluate_every: AtLeastOne = 800
    """Steps between evaluations on the validation split."""
    checkpoint_every: AtLeastOne = 800
    """Steps between checkpoints."""
    log_every: AtLeastOne = 100
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[Tracker, ...] = ()
    """Services that receive these lines too (extras `tb` and `wandb`)."""
    compute: Compute = Compute()

    def check(self) -> None:
        """Raise `ConfigError` for the first field that cannot be run."""
        check_types(self)
        require_run_folder(self.workdir, "workdir")
        for part in (self.data, self.model, self.views, self.compute):
            part.check()
        last, expected = self.seed + self.seeds - 1, f"a last seed of at most {LARGEST}"
        require(last <= LARGEST, "seeds", expected, last)
        self.optim.check("optim", self.steps)
        self.skip.check("skip")
        if self.teacher is not None:
            self.teacher.check("teacher")
        self._check_cache()
        self.strategy.check()
        self._check_networks()
        self._check_terms()
        self._check_temperature()

    @property
    def cache(self) -> Cache:
        """The cache of the teacher's targets; one without a path for a live teacher."""
        return getattr(self.teacher, "cache", Cache())

    def _check_cache(self) -> None:
        cache, is_fixed = self.cache, self.views.mode == "fixed"
        expected = "0 unless views.mode is fixed"
        require(
            is_fixed or not cache.crops, "teacher.cache.crops", expected, cache.crops
        )
        expected = "0 with views.mode fixed, which has one target per image"
        ok = not (is_fixed and cache.epochs)
        require(ok, "teacher.cache.epochs", expected, cache.epochs)
        self._check_apart(cache.path)

    def _check_networks(self) -> None:
        for name, network in self.networks.items():
            ok = isinstance(self.strategy, Custom)
            expected = "none, without a strategy that trains them (strategy.function)"
            require(ok, f"networks.{name}", expected, network.model.name)
            ok = name not in ("student", "teacher")
            expected = "another name (the student is `model`, the teacher `teacher`)"
            require(ok, f"networks.{name}", expected, name)
            network.check(f"networks.{name}", self.steps)

    def _check_terms(self) -> None:
        require(bool(self.terms), "terms", "at least one term", self.terms)
        for name, term in self.terms.items():
            names = (*RESERVED, "agreement")
            expected = f"names other than {', '.join(names)}, which the log has"
            require(name not in names, "terms", expected, name)
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
        """True if the strategy reads the teacher's targets."""
        if isinstance(self.strategy, Custom):
            return self.teacher is not None
        return any(term.uses_teacher for term in self.terms.values())

    @property
    def folder(self) -> pathlib.Path:
        """`workdir`, with ~ replaced by the user's home."""
        return pathlib.Path(self.workdir).expanduser()

    @property
    def temperature(self) -> float | None:
        """The one temperature at which all terms read the teacher's logits.

        None where it changes, differs between terms, or is the default of a loss or a
        strategy's own. Terms that a weight of 0 leaves out do not count.
        """
        if isinstance(self.strategy, Custom):
            return None
        reading = [term for term in self.terms.values() if term.teacher == "logits"]
        levels = {_temperature(term) for term in reading if term.counts} or {1.0}
        return levels.pop() if len(levels) == 1 else None

    @property
    def mean_at(self) -> float | None:
        """The temperature at which an ensemble's probabilities are averaged.

        None where it is the temperature of the loss, and that is not constant.
        """
        own = self.teacher.mean_at if isinstance(self.teacher, Ensemble) else 0.0
        return own or self.temperature

    def _check_temperature(self) -> None:
        """Refuse what depends on the temperature of the loss where it has not one."""
        constant, also = self.temperature is not None, "or terms of one temperature"
        expected = f"0 (all classes), {also}"
        top_k = self.cache.top_k
        require(constant or not top_k, "teacher.cache.top_k", expected, top_k)
        if isinstance(self.teacher, Ensemble):
            mean = self.teacher.mean
            ok = self.mean_at is not None or mean != "probabilities"
            expected = f"logits, {also}, or a teacher.mean_at"
            require(ok, "teacher.mean", expected, mean)

    def _check_apart(self, store: str) -> None:
        """Refuse a cache inside the run folder, and a run folder inside the cache."""
        store = store.removeprefix("file://")
        if not store or "://" in store:
            return
        a = pathlib.Path(store).expanduser().resolve()
        b = self.folder.resolve()
        apart = not (a.is_relative_to(b) or b.is_relative_to(a))
        want = f"a folder neither in workdir {self.workdir!r} nor around it"
        require(apart, "teacher.cache.path", want, store)


def _temperature(term: Term) -> float | None:
    """The constant temperature of a term; None for a schedule or a loss's own."""
    _, temperature = term.scalars
    if temperature is None:
        return 1.0 if term.loss == "softmax_kl" else None
    return temperature.value if temperature.end is None else None


def labels_only(run: Run, **changes: Any) -> Run:
    """The same run on labels alone; `changes` replace further fields."""
    plain = {"terms": {"hard": HARD}, "strategy": Offline(), "networks": {}}
    plain["baselines"] = ()
    return dataclasses.replace(run, **{**plain, **changes})


def to_dict(run: Any) -> dict[str, Any]:
    """A config as plain values, as it stands in `config.json`.

    A function passed from Python becomes `python:NAME`.
    """
    return json.loads(json.dumps(to_plain(run)))


# Keys of `config.json` that are no fields of a config (`kdjax.setup.identity`).
_NO_FIELDS = ("given", "content")


def from_dict(values: Mapping[str, Any]) -> Run:
    """The inverse of `to_dict`, also for `config.json` files of earlier releases.

    A missing field has its default; unknown and ill-typed ones are errors.
    """
    fields = {k: v for k, v in values.items() if k not in _NO_FIELDS}
    try:
        return from_plain(Run, upgrade(fields))
    except RecursionError:
        text = "one is nested too deeply"
        raise ConfigError("config", "tables of fields", shown=text) from None
