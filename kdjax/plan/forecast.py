"""Figures of a planned training, and what follows from them and from public figures."""

import dataclasses
from typing import Any

from kdjax.plan.hardware import Hardware
from kdjax.plan.traffic import Collective


@dataclasses.dataclass(frozen=True)
class Figures:
    """A training on hardware that is not there. Bytes and FLOPs are of one device.

    name: of the training.
    on: the hardware.
    devices: their number.
    batch, seeds, steps: of the run.
    examples: of its training split.
    steps_per_call: steps of one program.
    held: bytes by what they hold: parameters, optimizer, statistics, teacher, data,
        batch.
    program: bytes by the compiler's account: arguments, temporaries, code, total.
        Empty where it did not fit.
    problem: the compiler's sentence where it did not fit.
    flops: of one step of all seeds, on one device: products and convolutions.
    student_flops, teacher_flops: of one image, forward; None without a live teacher.
    accessed: bytes that a step moves to and from memory; 0 where the compiler gives
        none.
    collectives: of one step.
    compile_seconds: of the compiler; 0 where the result was kept from before.
    """

    name: str
    on: str
    devices: int
    batch: int
    seeds: int
    steps: int
    examples: int
    steps_per_call: int
    held: dict[str, int]
    program: dict[str, int]
    problem: str
    flops: float
    student_flops: int
    teacher_flops: int | None
    accessed: float
    collectives: list[Collective]
    compile_seconds: float

    @property
    def epochs(self) -> float:
        """Of the training images."""
        return self.steps * self.batch / self.examples

    def fits(self, hardware: Hardware) -> bool | None:
        """True where the memory of a chip is enough; None where it is not known."""
        if self.problem:
            return False
        if not hardware.chip.memory:
            return None
        return self.program["total"] <= hardware.chip.memory

    def least_seconds(self, hardware: Hardware) -> dict[str, float]:
        """Seconds of a step at the public peaks, by what they are spent on.

        A step takes at least the largest of them. Empty for a chip without figures.
        """
        chip = hardware.chip
        sent = {
            "links": (chip.link, [x for x in self.collectives if not x.between]),
            "network": (chip.network, [x for x in self.collectives if x.between]),
        }
        rates = {"products": (chip.flops, self.flops)}
        rates["memory"] = (chip.bandwidth, self.accessed)
        for name, (rate, crossing) in sent.items():
            rates[name] = (rate, sum(x.sent for x in crossing))
        return {k: amount / rate for k, (rate, amount) in rates.items() if rate}


def to_values(figures: Figures) -> dict[str, Any]:
    """Plain values for JSON."""
    values = dataclasses.asdict(figures)
    values["collectives"] = [x._asdict() for x in figures.collectives]
    return values


def from_values(values: dict[str, Any]) -> Figures:
    """The inverse of `to_values`."""
    collectives = [Collective(**x) for x in values["collectives"]]
    return Figures(**{**values, "collectives": collectives})
