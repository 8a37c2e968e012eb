"""Whom to learn from."""

import dataclasses
from typing import Literal

from kdjax.config.checks import is_number, require
from kdjax.config.data import Views
from kdjax.config.model import Model
from kdjax.config.training import Optim


@dataclasses.dataclass(frozen=True)
class Member:
    """One more teacher beside the first."""

    run: str = ""
    """A run folder whose model it is; empty: `model` with its published weights."""
    step: int = 0
    """Which checkpoint of that run; 0 takes the last."""
    model: Model = Model()
    weight: float = 1.0
    """Its share of the mean, beside the weights of the others."""
    temperature: float = 1.0
    """Its logits are divided by this before the mean."""

    def check(self, at: str) -> None:
        _check_model(self.model, f"{at}.model")
        ok = bool(self.run) != bool(self.model.weights)
        want = "a run folder, or published weights in model.weights"
        require(ok, f"{at}.run", want, (self.run, self.model.weights))
        _check_step(self.step, self.run, at)
        for field in ("weight", "temperature"):
            value = getattr(self, field)
            require(is_number(value) and value > 0, f"{at}.{field}", "> 0", value)


@dataclasses.dataclass(frozen=True)
class Cache:
    """Targets computed ahead of time by `kdjax cache-targets`, in place of a live
    teacher."""

    path: str = ""
    """Folder or URL (gs://...) of the store; empty: the teacher runs live."""
    epochs: float = 0.0
    """Epochs whose views are stored and replayed; a longer run cycles through them. 0:
    all of the run's. A store of more epochs can be read for fewer. Views of mode
    `fixed` need one target per image."""
    top_k: int = 0
    """The top-k classes kept of each output; 0 keeps the logits of all. A store of more
    classes can be read for fewer."""
    tail: Literal["uniform", "bucket", "renormalize", "renormalise"] = "uniform"
    """What the classes not kept are taken for (`kdjax.losses.top_k_kl`). Configs of the
    release before this one may say "renormalise"."""
    taps: tuple[str, ...] = ()
    """Activations of the teacher that are stored too."""
    crops: int = 0
    """Views of mode `fixed`: store the mean of the probabilities (at temperature 1)
    over so many inception crops of each image; 0 stores the output for the one view of
    the mode."""

    def check(self, at: str) -> None:
        ok = is_number(self.epochs) and self.epochs >= 0
        require(ok, f"{at}.epochs", "a number >= 0", self.epochs)
        require(self.top_k >= 0, f"{at}.top_k", ">= 0 classes", self.top_k)
        require(self.crops >= 0, f"{at}.crops", ">= 0", self.crops)
        ok = self.top_k > 0 or self.tail == Cache.tail
        want = f"{Cache.tail}, its default, where no class is left out (top_k 0)"
        require(ok, f"{at}.tail", want, self.tail)
        ok = not (self.crops and self.taps)
        require(ok, f"{at}.taps", "none with crops, whose mean has none", self.taps)
        if not self.path:
            want = "as it is by default, without a path"
            for field in ("epochs", "top_k", "tail", "taps", "crops"):
                value = getattr(self, field)
                require(value == getattr(Cache, field), f"{at}.{field}", want, value)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Whom to learn from: a finished run, published weights, a model to be trained
    first, or the student's own average."""

    kind: Literal["model", "average"] = "model"
    """model: one that does not change. average: the exponential moving average of the
    student itself."""
    decay: float = 0.999
    """average only: the share of the old average that each update keeps."""
    run: str = ""
    """A run folder whose model is the teacher. Empty: the published weights of `model`
    if it names any, else a model that is trained first, in WORKDIR/teacher; `train`,
    `steps`, `optim` and `views` are those of that training."""
    step: int = 0
    """Which checkpoint of `run`; 0 takes the last."""
    model: Model = Model(depth=8, width=8)
    precision: Literal["float32", "bfloat16"] = "float32"
    """What it computes in."""
    train: str = "train"
    """Split that the teacher is trained on; its data set is the student's."""
    steps: int = 1_000
    """Updates of its training."""
    optim: Optim = Optim()
    views: Views = Views(mode="consistent", area=(0.5, 1.0), flip=False)
    weight: float = 1.0
    """Its share of the mean with `also`."""
    temperature: float = 1.0
    """With `also`: its logits are divided by this before the mean."""
    also: tuple[Member, ...] = ()
    """More teachers, each at its own resolution; the targets are the mean of all. Named
    by a config function or config.json; no option of the command line says them."""
    mean: Literal["logits", "probabilities"] = "logits"
    """What of several teachers is averaged: logits as in the paper, or probabilities as
    in its released trainer."""
    mean_at: float = 0.0
    """With `mean` probabilities: the temperature at which; 0 takes that of the loss."""
    cache: Cache = Cache()

    def check(self, at: str = "teacher") -> None:
        ok = is_number(self.decay) and 0 <= self.decay < 1
        require(ok, f"{at}.decay", "a number in [0, 1)", self.decay)
        _check_model(self.model, f"{at}.model")
        ok = not (self.run and self.model.weights)
        want = f"none beside {at}.model.weights"
        require(ok, f"{at}.run", want, self.run)
        _check_step(self.step, self.run, at)
        for field in ("weight", "temperature"):
            value = getattr(self, field)
            require(is_number(value) and value > 0, f"{at}.{field}", "> 0", value)
            ok = bool(self.also) or value == getattr(Teacher, field)
            require(ok, f"{at}.{field}", f"1 without {at}.also", value)
        ok = bool(self.also) or self.mean == Teacher.mean
        require(ok, f"{at}.mean", f"{Teacher.mean} without {at}.also", self.mean)
        ok = is_number(self.mean_at) and self.mean_at >= 0
        require(ok, f"{at}.mean_at", "a number >= 0", self.mean_at)
        ok = self.mean == "probabilities" or not self.mean_at
        require(ok, f"{at}.mean_at", "0 but with mean probabilities", self.mean_at)
        for i, member in enumerate(self.also):
            member.check(f"{at}.also.{i}")
        self.cache.check(f"{at}.cache")
        if self.kind == "average":
            want = "as it is by default beside kind average"
            for field in ("run", "precision", "also", "cache"):
                value = getattr(self, field)
                require(value == getattr(Teacher, field), f"{at}.{field}", want, value)
            weights = self.model.weights
            require(not weights, f"{at}.model.weights", want, weights)
        else:
            ok = self.decay == Teacher.decay
            want = f"{Teacher.decay}, its default, but with kind average"
            require(ok, f"{at}.decay", want, self.decay)
        if self.trained_first:
            require(self.steps >= 1, f"{at}.steps", "at least 1", self.steps)
            self.optim.check(f"{at}.optim", self.steps)
            self.views.check(f"{at}.views")

    @property
    def trained_first(self) -> bool:
        """Whether the teacher's training is part of the run."""
        return self.kind == "model" and not self.run and not self.model.weights


def _check_step(step: int, run: str, at: str) -> None:
    require(step >= 0, f"{at}.step", ">= 0", step)
    require(bool(run) or not step, f"{at}.step", f"0 without {at}.run", step)


def _check_model(model: Model, at: str) -> None:
    """A model with weights teaches as it is: it has to have learnt the classes."""
    model.check(at)
    want = "no head, which nobody would train"
    require("head" not in model.adapt, f"{at}.adapt", want, model.adapt)
