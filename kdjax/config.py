"""What a run is, as frozen dataclasses of plain values. Imports nothing heavy.

The command line is these fields (`kdjax distill --help`), `config.json` in a run folder
is these fields, and an experiment is a function that returns a `Run`.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

Mode = Literal["fixed", "independent", "consistent", "function_matching"]
Baseline = Literal["labels", "labels_mixup"]
Tracker = Literal["tensorboard", "wandb"]
Level = Literal["constant", "linear", "cosine"]


class ConfigError(ValueError):
    """A field of a config holds a value that cannot be run; the text names it."""


def require(ok: bool, field: str, expected: str, got: Any) -> None:
    """Raise `ConfigError` naming the field, what was expected and what came."""
    if not ok:
        raise ConfigError(f"{field}: expected {expected}, got {got!r}")


def _number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and which part of them for what."""

    name: str = "digits"
    """A known data set, or `module:function` (or `file.py:function`) of your own that
    returns {split: (uint8 images [n, height, width, channels], int labels [n])}."""
    train: str = "train[:200]"
    """Split that the student is taught on. Sub-splits as in TFDS: train[:90%]."""
    validation: str = "validation"
    """Split for curves and for choosing the best checkpoint."""
    test: str = "test"
    """Split for the final table; nothing is ever chosen on it."""

    def check(self, at: str = "data") -> None:
        for field in ("name", "train", "validation", "test"):
            value = getattr(self, field)
            require(bool(value), f"{at}.{field}", "a name", value)


@dataclasses.dataclass(frozen=True)
class Model:
    """An image classifier by name and size."""

    name: str = "resnet"
    """`resnet` (CIFAR style), or `module:function` of your own, called with this
    config and the number of classes, returning a `kdjax.core.types.Model`."""
    depth: int = 8
    """Layers, 6n + 2."""
    width: int = 2
    """Channels of the first stage; the next two have twice and four times as many."""
    norm: Literal["batch", "group"] = "group"
    """BatchNorm or GroupNorm."""
    resolution: int = 8
    """Side in pixels of the square that this model sees."""

    def check(self, at: str = "model") -> None:
        if self.name == "resnet":
            ok = self.depth >= 8 and (self.depth - 2) % 6 == 0
            require(ok, f"{at}.depth", "6n + 2 with n >= 1", self.depth)
            require(self.width >= 1, f"{at}.width", "at least 1", self.width)
        require(
            self.norm in ("batch", "group"), f"{at}.norm", "batch or group", self.norm
        )
        require(
            self.resolution >= 4, f"{at}.resolution", ">= 4 pixels", self.resolution
        )


@dataclasses.dataclass(frozen=True)
class Optim:
    """Optimiser and its schedule.

    `adam` is the recipe of arXiv 2106.05237: clip by global norm, Adam with its first
    moment in bfloat16, warm-up and cosine, decay on kernels only, scheduled but not
    multiplied by the learning rate. `sgd` is the recipe of the CIFAR tables: momentum,
    steps, decay added to every gradient.
    """

    name: Literal["adam", "sgd"] = "adam"
    """adam or sgd, each with its recipe."""
    lr: float = 1e-2
    """Peak learning rate."""
    wd: float = 1e-4
    """Weight decay. adam: w -= m(step) * wd * w. sgd: gradient += wd * w."""
    clip: float = 1.0
    """Largest global gradient norm; 0 does not clip."""
    momentum: float = 0.9
    """sgd only."""
    warmup: int = 200
    """Steps of linear warm-up; the first update has rate 0 if there are any."""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    """`steps` only: the fractions of the run after which the rate falls by gamma."""
    gamma: float = 0.1
    """`steps` only: the factor."""

    def check(self, at: str = "optim", steps: int | None = None) -> None:
        require(self.name in ("adam", "sgd"), f"{at}.name", "adam or sgd", self.name)
        schedules = ("cosine", "steps", "constant")
        known = self.schedule in schedules
        require(known, f"{at}.schedule", " or ".join(schedules), self.schedule)
        for field in ("lr", "wd", "clip", "momentum", "gamma"):
            value = getattr(self, field)
            ok = _number(value) and value >= 0
            require(ok, f"{at}.{field}", "a number >= 0", value)
        require(self.warmup >= 0, f"{at}.warmup", ">= 0 steps", self.warmup)
        if steps is not None:
            ok = self.warmup < steps
            require(ok, f"{at}.warmup", f"fewer than the {steps} steps", self.warmup)
        ok = all(0 < m < 1 for m in self.milestones)
        require(ok, f"{at}.milestones", "fractions between 0 and 1", self.milestones)
        if steps is not None and self.schedule == "steps":
            drops = [self.warmup, *(round(m * steps) for m in self.milestones)]
            ok = all(a < b for a, b in zip(drops, drops[1:], strict=False))
            want = f"steps one after another behind the warm-up (of {steps} steps)"
            require(ok, f"{at}.milestones", want, self.milestones)


@dataclasses.dataclass(frozen=True)
class Views:
    """What teacher and student see of an image (section 1.3 of the paper).

    fixed: the teacher sees the whole image, always the same; the student a random crop.
    independent: each side has a random crop of its own.
    consistent: both see one random crop.
    function_matching: both see one random crop, then one mixup with a coefficient drawn
    uniformly from [0, 1] for the batch.
    """

    mode: Mode = "function_matching"
    """What teacher and student share."""
    area: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest area of a crop, as a share of the image."""
    aspect: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest width/height of a crop; must bracket 1."""
    flip: bool = True
    """Mirror half of the crops left to right."""

    def check(self, at: str = "views") -> None:
        modes = get_args(Mode)
        require(
            self.mode in modes, f"{at}.mode", "one of " + ", ".join(modes), self.mode
        )
        low, high = self.area
        ok = _number(low) and _number(high) and 0 < low <= high <= 1
        require(ok, f"{at}.area", "0 < low <= high <= 1", self.area)
        low, high = self.aspect
        ok = _number(low) and _number(high) and 0 < low <= 1 <= high
        require(ok, f"{at}.aspect", "0 < low <= 1 <= high", self.aspect)


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number, or its path from `value` to `end` over the run."""

    value: float = 1.0
    """Value at the first step, and at every step of a constant."""
    end: float | None = None
    """Value at the last step; None stays at `value`."""
    schedule: Level = "constant"
    """The path between the two."""

    def check(self, at: str, *, positive: bool = False) -> None:
        for field in ("value", "end"):
            value = getattr(self, field)
            if field == "end" and value is None:
                continue
            ok = _number(value) and (value > 0 if positive else value >= 0)
            want = "a number > 0" if positive else "a number >= 0"
            require(ok, f"{at}.{field}", want, value)
        levels = get_args(Level)
        known = self.schedule in levels
        require(known, f"{at}.schedule", "one of " + ", ".join(levels), self.schedule)
        moves = self.schedule != "constant"
        require(
            moves == (self.end is not None),
            f"{at}.end",
            "a number with schedule linear or cosine, and none with constant",
            self.end,
        )


@dataclasses.dataclass(frozen=True)
class Term:
    """One weighted loss between a value of the student and one of the teacher."""

    loss: str = "softmax_kl"
    """A name in `kdjax.losses`."""
    weight: Scalar = Scalar(1.0)
    """Weight in the sum; a constant 0 leaves the term out."""
    temperature: Scalar = Scalar(1.0)
    """Used by losses that have a temperature; the T^2 factor is inside the loss."""
    student: str = "logits"
    """`logits`, or the name of one of the student's taps."""
    teacher: str = "logits"
    """`logits`, the name of one of the teacher's taps, or `labels`."""
    connector: bool = False
    """Teach a linear map (1x1 convolution) from the student's tap to the teacher's
    width, trained with the student and thrown away with the run."""

    def check(self, at: str) -> None:
        require(bool(self.loss), f"{at}.loss", "the name of a loss", self.loss)
        self.weight.check(f"{at}.weight")
        self.temperature.check(f"{at}.temperature", positive=True)


SOFT = Term("softmax_kl")
HARD = Term("hard_cross_entropy", teacher="labels")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The model to learn from: a finished run, or one to be trained first."""

    run: str = ""
    """A run folder whose model is the teacher. Empty: train one in WORKDIR/teacher."""
    model: Model = Model(depth=8, width=8)
    train: str = "train"
    """Split that the teacher is trained on; its data set is the student's."""
    steps: int = 1_000
    """Updates of its training."""
    optim: Optim = Optim()
    views: Views = Views(mode="consistent", area=(0.5, 1.0), flip=False)

    def check(self, at: str = "teacher") -> None:
        self.model.check(f"{at}.model")
        if not self.run:
            require(self.steps >= 1, f"{at}.steps", "at least 1", self.steps)
            self.optim.check(f"{at}.optim", self.steps)
            self.views.check(f"{at}.views")


@dataclasses.dataclass(frozen=True)
class Compute:
    """Where and how the step runs; changes speed, not results."""

    how: Literal["jit", "pmap"] = "jit"
    """jit: over a mesh, state sharded by rule. pmap: state copied to every device; a
    model of your own then has to synchronise its BatchNorm itself (axis "batch")."""
    data: int = 0
    """Devices that share a batch; 0: all that are left after `fsdp`."""
    fsdp: int = 1
    """Devices that share each large parameter (jit only)."""
    steps_per_call: int = 0
    """Updates per dispatch, by lax.scan. 0: 1 on CPU, 16 elsewhere."""
    several_processes: bool = False
    """This process is one of several that form one run (`kdjax.core.hosts.join`)."""

    def check(self, at: str = "compute") -> None:
        require(self.how in ("jit", "pmap"), f"{at}.how", "jit or pmap", self.how)
        require(self.data >= 0, f"{at}.data", ">= 0 devices", self.data)
        require(self.fsdp >= 1, f"{at}.fsdp", ">= 1 devices", self.fsdp)
        ok = self.how == "jit" or self.fsdp == 1
        require(ok, f"{at}.fsdp", "1 with pmap", self.fsdp)
        ok = self.how == "jit" or not self.several_processes
        require(ok, f"{at}.how", "jit with several processes", self.how)
        ok = self.steps_per_call >= 0
        require(ok, f"{at}.steps_per_call", ">= 0", self.steps_per_call)


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
    baselines: tuple[Baseline, ...] = ("labels", "labels_mixup")
    """`kdjax distill` also trains these label-only runs with the same model, schedule
    and number of views, for comparison."""
    optim: Optim = Optim()
    steps: int = 10_000
    """Updates. Patience is the point: on 200 images these are 3 200 passes."""
    batch: int = 64
    """Images an update, over all devices."""
    evaluate_every: int = 1_000
    """Steps between evaluations on the validation split."""
    checkpoint_every: int = 1_000
    """Steps between checkpoints."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[Tracker, ...] = ()
    """Where these lines go as well (extras `tb` and `wandb`)."""
    compute: Compute = Compute()

    def check(self) -> None:
        """Raise `ConfigError` for the first field that cannot be run."""
        _build(Run, dataclasses.asdict(self), "")
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
        require(bool(self.terms), "terms", "at least one term", self.terms)
        for name, term in self.terms.items():
            term.check(f"terms.{name}")
            ok = self.teacher is not None or term.teacher == "labels"
            require(
                ok, f"terms.{name}.teacher", "labels, without a teacher", term.teacher
            )
        for name in self.baselines:
            known = name in get_args(Baseline)
            require(known, "baselines", "labels or labels_mixup", name)
        for name in self.trackers:
            known = name in get_args(Tracker)
            require(known, "trackers", "tensorboard or wandb", name)


def labelled(run: Run, **changes: Any) -> Run:
    """The same run taught by labels alone; `changes` replace further fields."""
    terms = {"hard": HARD}
    return dataclasses.replace(run, **{"terms": terms, "baselines": (), **changes})


def to_dict(run: Any) -> dict[str, Any]:
    """A config as plain values, as it stands in `config.json`."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def from_dict(values: dict[str, Any]) -> Run:
    """The inverse of `to_dict`. Unknown, missing and ill-typed fields are errors."""
    return _build(Run, values, "")


def _build(cls: type, values: Any, at: str) -> Any:
    require(isinstance(values, dict), at or "config", "a table of fields", values)
    dot = f"{at}." if at else ""
    hints = get_type_hints(cls)
    for name in values:
        require(name in hints, f"{dot}{name}", "a known field", values[name])
    missing = sorted(set(hints) - set(values))
    require(not missing, at or "config", f"the fields {missing}", "none")
    return cls(**{k: _convert(hints[k], v, f"{dot}{k}") for k, v in values.items()})


def _convert(hint: Any, value: Any, at: str) -> Any:
    """A JSON value as the type that a field asks for; another type is an error."""
    origin, choices = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, at)  # type: ignore[arg-type]
    if origin is types.UnionType:
        if value is None and type(None) in choices:
            return None
        return _convert(choices[0], value, at)
    if origin is dict:
        require(isinstance(value, dict), at, "a table", value)
        return {k: _convert(choices[1], v, f"{at}.{k}") for k, v in value.items()}
    if origin is tuple:
        require(isinstance(value, (list, tuple)), at, "a list", value)
        if choices[-1] is not Ellipsis:
            n = len(choices)
            require(len(value) == n, at, f"{n} values", value)
        return tuple(_convert(choices[0], v, at) for v in value)
    if origin is Literal:
        require(value in choices, at, f"one of {list(choices)}", value)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is hint, at, f"a value of type {hint.__name__}", value)
    return value


def load_function(reference: str, field: str) -> Callable[..., Any]:
    """The function named `module:function` or `path/to/file.py:function`."""
    place, _, name = reference.rpartition(":")
    require(bool(place and name), field, "module:function", reference)
    try:
        if place.endswith(".py"):
            path = pathlib.Path(place).resolve()
            require(path.is_file(), field, "a file that exists", place)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except ConfigError:
        raise
    except Exception as error:
        text = f"{field}: cannot import {place!r}: {type(error).__name__}: {error}"
        raise ConfigError(text) from error
    found = getattr(module, name, None)
    require(callable(found), field, f"a function {name!r} in {place}", found)
    assert callable(found)
    return found


def call(function: Callable[..., Any], field: str, *args: Any) -> Any:
    """What a user's function returns; what it raises becomes an error of `field`."""
    try:
        return function(*args)
    except ConfigError:
        raise
    except Exception as error:
        name = getattr(function, "__name__", "the function")
        text = f"{field}: {name} raised {type(error).__name__}: {error}"
        raise ConfigError(text) from error


def load_config(reference: str) -> Run:
    """A `Run` from `file.py:function` or from a run folder's `config.json`."""
    if reference.endswith(".json"):
        path = pathlib.Path(reference)
        require(path.is_file(), "config", "a file that exists", reference)
        try:
            values = json.loads(path.read_text())
            values.pop("given", None)
            return from_dict(values)
        except json.JSONDecodeError as error:
            raise ConfigError(f"config: {reference} is not JSON: {error}") from error
    run = call(load_function(reference, "config"), "config")
    require(isinstance(run, Run), "config", "a function returning a Run", run)
    return run
