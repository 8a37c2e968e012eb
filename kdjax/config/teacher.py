"""Kinds of teachers, one class each: `Run.teacher` is one of them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from kdjax.config.bounds import (
    TEMPERATURES,
    BelowOne,
    Count,
    Length,
    Nonnegative,
    Positive,
    Temperature,
    Text,
)
from kdjax.config.checks import require, require_path, require_run_folder
from kdjax.config.data import Views
from kdjax.config.model import ModelConfig
from kdjax.config.training import Optim, Precision

Mean = Literal["logits", "probabilities"]
Outputs = Literal["logits", "probabilities", "embedding"]


@dataclasses.dataclass(frozen=True)
class Cache:
    """Targets computed ahead of time by `kdjax cache-targets`, in place of a live
    teacher."""

    path: str = ""
    """Folder or URL (gs://...) of the cache; empty: the teacher runs live."""
    epochs: Nonnegative = 0.0
    """Epochs of views that are stored and replayed; a longer run cycles through them.
    0: all epochs of the run. A cache of more epochs can be read for fewer. Views of
    mode `fixed` need one target per image."""
    top_k: Count = 0
    """The top-k classes kept of each output; 0 keeps all logits. A cache of more
    classes can be read for fewer."""
    tail: Literal["uniform", "bucket", "renormalize"] = "uniform"
    """Treatment of the classes outside the top-k (`kdjax.losses.top_k_kl`)."""
    taps: tuple[str, ...] = ()
    """Activations of the teacher that are stored too."""
    crops: Count = 0
    """Views of mode `fixed`: store the mean of the probabilities (at temperature 1)
    over this number of inception crops of each image. 0 stores the output for the one
    view of the mode."""

    def check(self, at: str) -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        require_path(self.path, f"{at}.path")
        ok = self.top_k > 0 or self.tail == Cache.tail
        expected = f"{Cache.tail} with all classes (top_k 0)"
        require(ok, f"{at}.tail", expected, self.tail)
        ok = not (self.crops and self.taps)
        require(ok, f"{at}.taps", "none with crops, whose mean has none", self.taps)
        if not self.path:
            for field in ("epochs", "top_k", "tail", "taps", "crops"):
                value, default = getattr(self, field), getattr(Cache, field)
                expected = f"{default!r} without {at}.path"
                require(value == default, f"{at}.{field}", expected, value)


@dataclasses.dataclass(frozen=True)
class FromRun:
    """The model of a finished run."""

    run: Text = ""
    """Its run folder."""
    step: Count = 0
    """Step of the checkpoint; 0 takes the last."""
    precision: Precision = "float32"
    """Floating-point type of its computation."""
    cache: Cache = Cache()
    seed: int | None = None
    """One of its seeds, which teaches all seeds. None: seed by seed where it has as
    many as this run, else its first."""
    kind: Literal["run"] = "run"
    """Names this kind of teacher."""

    def check(self, at: str) -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        require_run_folder(self.run, f"{at}.run")
        self.cache.check(f"{at}.cache")


@dataclasses.dataclass(frozen=True)
class FromWeights:
    """A network with published weights, or a function that brings its own."""

    # The path that chooses this kind on the command line, without its name.
    chosen_by = "model.weights"
    # Fields that do not come from the teacher of another kind.
    fresh = ("model",)

    model: ModelConfig = ModelConfig()
    """The network. `model.weights` names its weights, which are enough where they are
    of a known publisher. A function of your own may do without: its `init` then returns
    its variables, whatever the key."""
    precision: Precision = "float32"
    """Floating-point type of its computation."""
    cache: Cache = Cache()
    outputs: Outputs = "logits"
    """Outputs of the network. probabilities: their logarithm becomes the logits.
    Log-probabilities are logits. embedding: features of a network without a head. They
    become the tap `embedding`, and there are no logits."""
    kind: Literal["weights"] = "weights"
    """Names this kind of teacher."""

    def check(self, at: str) -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        self.model.check(f"{at}.model")
        weights, is_own = self.model.weights, ":" in self.model.name
        ok = bool(weights) or is_own
        require(ok, f"{at}.model.weights", "published weights", weights)
        adapt = self.model.adapt
        expected = "no head: the head of a teacher is not trained"
        require("head" not in adapt, f"{at}.model.adapt", expected, adapt)
        self.cache.check(f"{at}.cache")
        path, headless = self.cache.path, self.outputs == "embedding"
        ok = not (path and headless)
        require(ok, f"{at}.cache.path", "none with outputs embedding", path)


@dataclasses.dataclass(frozen=True)
class TrainFirst:
    """A network that is trained on labels first, in WORKDIR/teacher."""

    model: ModelConfig = ModelConfig()
    train: Text = "train"
    """Training split of the teacher; its data set is that of the student."""
    steps: Length = 1_000
    """Steps of its training."""
    optim: Optim = Optim()
    views: Views = Views(mode="consistent", area=(0.5, 1.0), flip=False)
    precision: Precision = "float32"
    """Floating-point type of its computation as a teacher."""
    cache: Cache = Cache()
    outputs: Outputs = "logits"
    """Outputs of a network passed from Python, as in kind weights. One that is trained
    here has logits."""
    kind: Literal["train"] = "train"
    """Names this kind of teacher."""

    def check(self, at: str) -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        self.model.check(f"{at}.model")
        weights = self.model.weights
        expected = f"none with {at}.kind train (kind weights uses them as they are)"
        require(not weights, f"{at}.model.weights", expected, weights)
        self.optim.check(f"{at}.optim", self.steps)
        self.views.check(f"{at}.views")
        self.cache.check(f"{at}.cache")


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """The exponential moving average of the student itself."""

    decay: BelowOne = 0.999
    """Share of the old average that each step keeps."""
    kind: Literal["average"] = "average"
    """Names this kind of teacher."""

    def check(self, at: str) -> None:
        """Nothing more to check than its types."""


Member = FromRun | FromWeights | TrainFirst


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Several teachers, each at its own resolution; the targets are their mean."""

    members: tuple[Member, ...] = ()
    """The teachers. At most one is trained first."""
    weights: tuple[Positive, ...] = ()
    """Weight of each member in the mean; empty: all equal."""
    temperatures: tuple[Temperature, ...] = ()
    """The logits of each member are divided by these before the mean; empty: by 1."""
    mean: Mean = "logits"
    """Quantity that is averaged: logits as in the paper, or probabilities as in its
    released trainer."""
    mean_at: Nonnegative = 0.0
    """With `mean` probabilities: their temperature; 0 takes that of the loss."""
    cache: Cache = Cache()
    kind: Literal["ensemble"] = "ensemble"
    """Names this kind of teacher."""

    def check(self, at: str) -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        count = len(self.members)
        require(count >= 2, f"{at}.members", "two teachers or more", count)
        first = sum(isinstance(x, TrainFirst) for x in self.members)
        require(first <= 1, f"{at}.members", "at most one of kind train", first)
        for i, member in enumerate(self.members):
            member.check(f"{at}.members.{i}")
            path = member.cache.path
            expected = f"none ({at}.cache holds the mean)"
            require(not path, f"{at}.members.{i}.cache.path", expected, path)
        headless = {_outputs(x) == "embedding" for x in self.members}
        ok, outputs = len(headless) == 1, [_outputs(x) for x in self.members]
        require(ok, f"{at}.members", "outputs embedding of all or of none", outputs)
        path, ok = self.cache.path, not (self.cache.path and True in headless)
        require(ok, f"{at}.cache.path", "none with outputs embedding", path)
        for field in ("weights", "temperatures"):
            values = getattr(self, field)
            ok = len(values) in (0, count)
            expected = f"one for each of {count} members, or none"
            require(ok, f"{at}.{field}", expected, values)
        ok = self.mean == "probabilities" or not self.mean_at
        require(ok, f"{at}.mean_at", "0 with mean logits", self.mean_at)
        low, high = TEMPERATURES
        ok = not self.mean_at or low <= self.mean_at <= high
        require(ok, f"{at}.mean_at", f"0, or {low:g} to {high:g}", self.mean_at)
        self.cache.check(f"{at}.cache")


def _outputs(member: Member) -> str:
    return getattr(member, "outputs", "logits")


TeacherConfig = Member | MovingAverage | Ensemble


def members_of(teacher: TeacherConfig | None) -> Iterator[tuple[str, Member]]:
    """The members of a teacher with their fields; itself if it is a single one.

    Empty without a teacher and for a moving average.
    """
    if isinstance(teacher, Ensemble):
        for i, member in enumerate(teacher.members):
            yield f"teacher.members.{i}", member
    elif teacher is not None and not isinstance(teacher, MovingAverage):
        yield "teacher", teacher


def trained_first(teacher: TeacherConfig | None) -> TrainFirst | None:
    """The teacher, or the member of an ensemble, whose training is part of the run."""
    members = [member for _, member in members_of(teacher)]
    return next((x for x in members if isinstance(x, TrainFirst)), None)


def replace_trained(teacher: TeacherConfig | None, folder: str) -> TeacherConfig | None:
    """A teacher with the finished run in `folder` in place of kind train."""
    if isinstance(teacher, TrainFirst):
        return FromRun(folder, precision=teacher.precision, cache=teacher.cache)
    if not isinstance(teacher, Ensemble):
        return teacher
    members = tuple(
        FromRun(folder, precision=x.precision) if isinstance(x, TrainFirst) else x
        for x in teacher.members
    )
    return dataclasses.replace(teacher, members=members)


def replace_published(
    teacher: TeacherConfig | None, replace: Callable[[ModelConfig, str], ModelConfig]
) -> TeacherConfig | None:
    """A teacher with other configs of its models with published weights.

    replace: `(config, field) -> config`.
    """
    if isinstance(teacher, FromWeights):
        return dataclasses.replace(
            teacher, model=replace(teacher.model, "teacher.model")
        )
    if not isinstance(teacher, Ensemble):
        return teacher
    members = tuple(
        dataclasses.replace(member, model=replace(member.model, f"{field}.model"))
        if isinstance(member, FromWeights)
        else member
        for field, member in members_of(teacher)
    )
    return dataclasses.replace(teacher, members=members)


def replace_cache(teacher: TeacherConfig | None, cache: Cache) -> TeacherConfig | None:
    """A teacher with another cache; one without a cache stays as it is."""
    if teacher is None or isinstance(teacher, MovingAverage):
        return teacher
    return dataclasses.replace(teacher, cache=cache)
