"""How a student is taught: losses, optimizer, devices."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from kdjax.config.checks import is_number, require

Level = Literal["constant", "linear", "cosine"]
# From Python also a function; the command line and `config.json` have names alone.
if TYPE_CHECKING:
    Loss = str | Callable[..., Any]
else:
    Loss = str
Option = bool | int | float | str | tuple[int | float, ...]


@dataclasses.dataclass(frozen=True)
class Optim:
    """Optimiser and its schedule.

    `adam` is the recipe of arXiv 2106.05237: clip by global norm, Adam with its first
    moment in bfloat16, warm-up and cosine, decay on kernels only, scheduled but not
    multiplied by the learning rate. `sgd` is the recipe of the CIFAR tables: momentum,
    steps, decay added to every gradient. `muon` is the recipe of `adam` with a gradient
    preconditioned by Newton and Schulz's iteration in place of Adam's for the kernels.
    """

    name: Literal["adam", "sgd", "muon"] = "adam"
    """adam, sgd or muon, each with its recipe."""
    lr: float = 1e-2
    """Peak learning rate."""
    wd: float = 1e-4
    """Weight decay. adam, muon: w -= m(step) * wd * w. sgd: gradient += wd * w."""
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
        for field in ("lr", "wd", "clip", "momentum", "gamma"):
            value = getattr(self, field)
            ok = is_number(value) and value >= 0
            require(ok, f"{at}.{field}", "a number >= 0", value)
        require(self.momentum < 1, f"{at}.momentum", "below 1", self.momentum)
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
            ok = is_number(value) and (value > 0 if positive else value >= 0)
            want = "a number > 0" if positive else "a number >= 0"
            require(ok, f"{at}.{field}", want, value)
        moves = self.schedule != "constant"
        require(
            moves == (self.end is not None),
            f"{at}.end",
            "a number with schedule linear or cosine, and none with constant",
            self.end,
        )


def check_options(options: Mapping[str, Option], at: str) -> None:
    """Refuse options that are no plain values; which ones there are is seen later."""
    for name, value in options.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        ok = all(is_number(x) or isinstance(x, (bool, str)) for x in items)
        require(ok, f"{at}.{name}", "a finite number or a name", value)


@dataclasses.dataclass(frozen=True)
class Term:
    """One weighted loss between a value of the student and one of the teacher."""

    loss: Loss = "softmax_kl"
    """A name in `kdjax.losses`, `file.py:function` of your own, or from Python a
    function `(student, teacher, **options) -> [batch]`."""
    weight: Scalar = Scalar(1.0)
    """Weight in the sum; a constant 0 leaves the term out."""
    temperature: Scalar | None = None
    """For losses that have a temperature; None takes the loss's own default. The T^2
    factor is inside the loss."""
    student: str | tuple[str, ...] = "logits"
    """`logits`, the name of one of the student's taps, or several taps for a loss
    over several layers."""
    teacher: str | tuple[str, ...] = "logits"
    """`logits`, one of the teacher's taps or several, or `labels`."""
    connector: bool = False
    """Teach a linear map (1x1 convolution) from the student's tap to the teacher's
    width, trained with the student and thrown away with the run."""
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the loss by name, as plain values."""
    example_weights: str = ""
    """Weights of the examples: `confidence_weights`, `fidelity_weights`,
    `reliability_mask`, `teacher_weights` (of several teachers), or `file.py:function`
    of your own; empty: all count alike."""
    example_options: dict[str, Option] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of `example_weights` by name."""
    mask: str = ""
    """A note of the batch, bool `[batch]`: the examples that count."""

    @property
    def counts(self) -> bool:
        """Whether it is there: a constant weight of 0 leaves it out."""
        return self.weight != Scalar(0.0)

    @property
    def uses_teacher(self) -> bool:
        """Whether it reads the teacher: its values, or weights made of them."""
        return self.teacher != "labels" or bool(self.example_weights)

    def check(self, at: str) -> None:
        require(bool(self.loss), f"{at}.loss", "the name of a loss", self.loss)
        self.weight.check(f"{at}.weight")
        if self.temperature is not None:
            self.temperature.check(f"{at}.temperature", positive=True)
        for side in ("student", "teacher"):
            taps = getattr(self, side)
            ok = bool(taps) and all(isinstance(tap, str) and tap for tap in taps)
            require(ok, f"{at}.{side}", "the name of a tap, or several", taps)
        check_options(self.options, f"{at}.options")
        check_options(self.example_options, f"{at}.example_options")
        ok = bool(self.example_weights) or not self.example_options
        want = f"none without {at}.example_weights"
        require(ok, f"{at}.example_options", want, self.example_options)


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
        require(self.data >= 0, f"{at}.data", ">= 0 devices", self.data)
        require(self.fsdp >= 1, f"{at}.fsdp", ">= 1 devices", self.fsdp)
        ok = self.how == "jit" or self.fsdp == 1
        require(ok, f"{at}.fsdp", "1 with pmap", self.fsdp)
        ok = self.how == "jit" or not self.several_processes
        require(ok, f"{at}.how", "jit with several processes", self.how)
        ok = self.steps_per_call >= 0
        require(ok, f"{at}.steps_per_call", ">= 0", self.steps_per_call)
