"""Configs of the loss, the optimizer and the devices."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from kdjax.config.bounds import (
    TEMPERATURES,
    AtLeastOne,
    BelowOne,
    Count,
    Devices,
    Nonnegative,
    Steps,
    Text,
    UnitInterval,
)
from kdjax.config.checks import is_number, require, require_path

Level = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]
# From Python also a function; the command line and `config.json` have names alone.
if TYPE_CHECKING:
    Loss = str | Callable[..., Any]
else:
    Loss = str
Option = bool | int | float | str | tuple[int | float | str, ...]


@dataclasses.dataclass(frozen=True)
class Optim:
    """Optimizer and its schedule.

    `adam` is the recipe of arXiv 2106.05237: clip by global norm, Adam with its first
    moment in bfloat16, warm-up and cosine, decay on kernels only, scheduled but not
    multiplied by the learning rate. `sgd` is the recipe of the CIFAR tables: momentum,
    steps, decay added to every gradient. `muon` is the recipe of `adam` with a gradient
    preconditioned by Newton and Schulz's iteration in place of Adam's for the kernels.
    """

    name: Literal["adam", "sgd", "muon"] = "adam"
    """adam, sgd or muon, each with its recipe."""
    lr: Nonnegative = 1e-2
    """Peak learning rate."""
    wd: Nonnegative = 1e-4
    """Weight decay. adam, muon: w -= m(step) * wd * w. sgd: gradient += wd * w."""
    clip: Nonnegative = 1.0
    """Largest global gradient norm; 0 does not clip."""
    momentum: BelowOne = 0.9
    """sgd only."""
    warmup: Steps = 200
    """Steps of linear warm-up. With any, the rate of the first step is 0."""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """Path of the rate after the warm-up."""
    milestones: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.625, 0.75, 0.875)
    """`steps` only: the fractions of the run after which the rate falls by gamma."""
    gamma: Nonnegative = 0.1
    """`steps` only: the factor."""
    ema: BelowOne = 0.0
    """Decay of an exponential moving average (EMA) of the network's variables, which is
    then what is evaluated and taken out; 0: the variables themselves."""
    parameters: tuple[Text, ...] = ()
    """Patterns of the parameters that move, such as `stage1/*` or `*/bias`. The others
    keep their values, and do not decay. Empty: all. Those of a run are the student's;
    its projectors and other networks move as a whole."""

    def check(self, at: str = "optim", steps: int | None = None) -> None:
        """Raise `ConfigError` for fields that do not fit together, or `steps`."""
        if steps is not None:
            ok = self.warmup < steps
            require(ok, f"{at}.warmup", f"fewer than the {steps} steps", self.warmup)
        if steps is not None and self.schedule == "steps":
            drops = [self.warmup, *(round(m * steps) for m in self.milestones)]
            ok = all(a < b for a, b in zip(drops, drops[1:], strict=False))
            want = f"steps one after another behind the warm-up (of {steps} steps)"
            require(ok, f"{at}.milestones", want, self.milestones)


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number, or its path from `value` to `end` over the run."""

    value: Nonnegative = 1.0
    """Value at the first step, and at every step of a constant."""
    end: Nonnegative | None = None
    """Value at the last step; None stays at `value`."""
    schedule: Level = "constant"
    """The path between the two."""
    over: tuple[UnitInterval, UnitInterval] = (0.0, 1.0)
    """The part of the run in which it moves, as fractions of its steps: (0, 0.1) is a
    warm-up, and (0.5, 0.5) a jump in the middle."""

    @classmethod
    def from_number(cls, value: float) -> "Scalar":
        """A constant."""
        return cls(float(value))

    def check(self, at: str, within: tuple[float, float] = (0.0, math.inf)) -> None:
        """Raise `ConfigError` for fields that do not fit together, or not `within`."""
        low, high = within
        for field in ("value", "end"):
            level = getattr(self, field)
            ok = level is None or low <= level <= high
            expected = f"a number in [{low:g}, {high:g}]"
            require(ok, f"{at}.{field}", expected, level)
        moves = self.schedule != "constant"
        require(
            moves == (self.end is not None),
            f"{at}.end",
            "a number with schedule linear or cosine, and none with constant",
            self.end,
        )
        ok, (first, last) = moves or self.over == (0.0, 1.0), self.over
        require(ok, f"{at}.over", "(0, 1) with schedule constant", self.over)
        require(first <= last, f"{at}.over", "a beginning before the end", self.over)


def check_options(options: Mapping[str, Option], at: str) -> None:
    """Refuse options that are no plain values. Their names are checked later."""
    for name, value in options.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        ok = all(is_number(x) or isinstance(x, (bool, str)) for x in items)
        require(ok, f"{at}.{name}", "a finite number or a name", value)


def as_names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


@dataclasses.dataclass(frozen=True)
class Term:
    """One weighted loss between a value of the student and one of the teacher.

    A plain number as `weight` or `temperature` is a constant.
    """

    loss: Loss = "softmax_kl"
    """A name in `kdjax.losses`, `file.py:function` of your own, or from Python a
    function `(student, teacher, **options) -> [batch]`."""
    weight: Scalar | float = Scalar(1.0)
    """Weight in the sum; a constant 0 leaves the term out."""
    temperature: Scalar | float | None = None
    """For losses that have a temperature; None takes the loss's own default. The T^2
    factor is inside the loss."""
    student: str | tuple[str, ...] = "logits"
    """`logits`, the name of one of the student's taps, or several taps for a loss
    over several layers."""
    teacher: str | tuple[str, ...] = "logits"
    """`logits`, one of the teacher's taps or several, or `labels`."""
    projector: bool | str | tuple[str, ...] = False
    """Train a map from the student's tap to the shape of the teacher's: a name such as
    `linear`, `regressor` or `mlp`, several in order such as `pool linear`, or True for
    `linear`. It is no part of the trained student."""
    projector_weights: str = ""
    """A run folder, or `stage:NAME`, whose term of this name trained the projector that
    this one starts from; empty: new ones."""
    pair: Literal["", "depth", "all"] = ""
    """Pairs of taps for a loss of one tap of each network, added. depth: each of the
    student's with the teacher's at the same relative depth; all: each with each.
    Empty: the taps are those of one loss."""
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the loss by name, as plain values."""
    example_weights: str = ""
    """Weights of the examples: `confidence_weights`, `fidelity_weights`,
    `reliability_mask`, `teacher_weights` (of several teachers), or `file.py:function`
    of your own; empty: all count alike."""
    example_options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of `example_weights` by name."""
    mask: str = ""
    """Name of a note of the batch, bool `[batch]`: the examples that count."""

    def __post_init__(self) -> None:
        for field in ("weight", "temperature"):
            if is_number(getattr(self, field)):
                constant = Scalar.from_number(getattr(self, field))
                object.__setattr__(self, field, constant)

    @property
    def scalars(self) -> tuple[Scalar, Scalar | None]:
        """Its weight, and its temperature if it names one."""
        assert isinstance(self.weight, Scalar)
        assert isinstance(self.temperature, Scalar | None)
        return self.weight, self.temperature

    @property
    def projectors(self) -> tuple[str, ...]:
        """The names of its projector's parts, in order; empty without one."""
        if isinstance(self.projector, bool):
            return ("linear",) if self.projector else ()
        return as_names(self.projector)

    @property
    def counts(self) -> bool:
        """False for a constant weight of 0, which leaves the term out."""
        return self.weight != Scalar(0.0)

    @property
    def uses_teacher(self) -> bool:
        """True if it reads the teacher: its values, or weights made of them."""
        return self.teacher != "labels" or bool(self.example_weights)

    def check(self, at: str) -> None:
        require(bool(self.loss), f"{at}.loss", "the name of a loss", self.loss)
        weight, temperature = self.scalars
        weight.check(f"{at}.weight")
        if temperature is not None:
            temperature.check(f"{at}.temperature", TEMPERATURES)
        for side in ("student", "teacher"):
            taps = getattr(self, side)
            ok = bool(taps) and all(isinstance(tap, str) and tap for tap in taps)
            require(ok, f"{at}.{side}", "the name of a tap, or several", taps)
        ok = isinstance(self.projector, bool) or bool(self.projector)
        want = "a name, several, or False"
        require(ok, f"{at}.projector", want, self.projector)
        ok = bool(self.projector) or not self.projector_weights
        require_path(self.projector_weights, f"{at}.projector_weights")
        want = f"none without {at}.projector"
        require(ok, f"{at}.projector_weights", want, self.projector_weights)
        check_options(self.options, f"{at}.options")
        check_options(self.example_options, f"{at}.example_options")
        ok = bool(self.example_weights) or not self.example_options
        want = f"none without {at}.example_weights"
        require(ok, f"{at}.example_options", want, self.example_options)


@dataclasses.dataclass(frozen=True)
class Skip:
    """Steps that are left out where the run would else end with NaN."""

    most: Count = 0
    """Steps in a row that may be left out: those whose loss or gradients are not
    finite. They change no parameter. One more ends the run."""
    above: Nonnegative = 0.0
    """Norm of all gradients above which a step is left out too; 0: any finite one is
    taken."""

    def check(self, at: str) -> None:
        ok, expected = bool(self.most or not self.above), f"0 without {at}.most"
        require(ok, f"{at}.above", expected, self.above)


@dataclasses.dataclass(frozen=True)
class Compute:
    """Devices, memory and precision of the step.

    Only `precision` and `accumulate` change results by more than rounding.
    """

    how: Literal["jit", "pmap"] = "jit"
    """jit: over a mesh, state sharded by rule. pmap: state copied to every device; a
    model of your own then has to synchronize its BatchNorm itself (axis "batch")."""
    data: Devices = 0
    """Devices that share a batch; 0: all devices divided by `fsdp`."""
    fsdp: AtLeastOne = 1
    """Devices that share each large parameter (jit only)."""
    precision: Precision = "float32"
    """Arithmetic of the networks that learn, in training. Their parameters, gradients
    and losses stay in float32. A teacher has its own (`teacher.precision`)."""
    remat: Literal["none", "products", "all"] = "none"
    """Activations that are computed again for the gradient, instead of kept. all: those
    inside each block of a network, such as a residual block; products: of them, those
    that are no output of a convolution or matrix product."""
    accumulate: AtLeastOne = 1
    """Parts of a batch, one after another, whose gradients are averaged."""
    shard: dict[str, Annotated[int, Ge(-1), Le(8)]] = dataclasses.field(
        default_factory=dict
    )
    """The axis of a parameter that `fsdp` divides, from 0, or -1 for a copy on every
    device, by a pattern of the end of its path, such as `student/head/*` or `*/kernel`.
    The first pattern that fits counts. Others follow the rule: the largest axis that
    divides, from 1,024 elements on."""
    steps_per_call: Count = 0
    """Steps per dispatch, by lax.scan. 0: 1 on CPU, 16 elsewhere."""
    several_processes: bool = False
    """This process is one of several that form one run (`kdjax.core.hosts.join`)."""
    meet_within: Annotated[float, Ge(5), Le(86_400)] = 300.0
    """Seconds in which all processes of a run must have started."""
    lost_after: Annotated[float, Ge(5), Le(3600)] = 60.0
    """Seconds without a sign of another process after which this one ends, with exit
    status 75."""

    def check(self, at: str = "compute") -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        ok = self.how == "jit" or self.fsdp == 1
        require(ok, f"{at}.fsdp", "1 with pmap", self.fsdp)
        ok = self.how == "jit" or not self.several_processes
        require(ok, f"{at}.how", "jit with several processes", self.how)
        for pattern in self.shard:
            expected = f"none without {at}.fsdp"
            require(self.fsdp > 1, f"{at}.shard", expected, pattern)

    def on_one_device(self) -> "Compute":
        """The same step on one device."""
        return Compute(
            data=1,
            precision=self.precision,
            remat=self.remat,
            accumulate=self.accumulate,
        )
