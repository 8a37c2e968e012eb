"""Part `bit`: BiT R152x2 to R50x1, a step of kdjax with random weights."""

import argparse
import dataclasses
import functools
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import kdjax
from experiments.benchmarks.common import Prepared, base, prepare, splits
from experiments.benchmarks.gpu import toys
from experiments.benchmarks.gpu.kernels import normal, seconds
from experiments.benchmarks.gpu.steps import (
    MIB,
    Program,
    compile_call,
    compile_program,
    peak,
    random_variables,
    show_peak,
    turns,
)
from experiments.benchmarks.gpu.tables import Table
from kdjax import setup
from kdjax.config import ModelConfig, Run, TrainFirst
from kdjax.core.flops import count_flops
from kdjax.core.types import BoundModel

RATE, STEP = "matrix rate", "BiT step"
CLASSES = 1000


class Size(NamedTuple):
    """Networks and shapes of the part."""

    student: str
    teacher: str
    resolutions: tuple[int, ...]
    batches: tuple[int, ...]
    side: int
    steps: int
    repeats: int


FULL = Size("bit_r50x1", "bit_r152x2", (128, 224), (256, 128, 64, 32), 8192, 5, 5)
DRY = Size(toys.BIT, toys.BIT, (16,), (2,), 64, 1, 3)


class TooLarge(Exception):
    """A program that needs more memory than the device has."""

    def __init__(self, mib: float, limit: int):
        super().__init__(f"needs {mib:,.0f} MiB of {limit / MIB:,.0f}")
        self.share = limit / (mib * MIB)


def measure(table: Table, options: argparse.Namespace) -> None:
    """The matrix rate, then a row for each resolution."""
    size = DRY if options.dry else FULL
    names = {f"{px} px": px for px in size.resolutions}
    product = f"bfloat16 {size.side} x {size.side} x {size.side}"
    table.plan(RATE, [product])
    table.plan(STEP, names)
    table.note(
        "TFLOP/s counts matrix products and convolutions of the teacher's forward pass "
        "and of the student's step; its share is of the measured matrix rate."
    )
    table.note("Teacher in bfloat16, student in float32 (TF32 products on GPU).")
    found = table.measure(RATE, product, lambda: matrix_rate(size)) or {}
    rate = found.get("TFLOP/s")
    for name, px in names.items():
        table.measure(STEP, name, functools.partial(step_row, size, px, rate))


def matrix_rate(size: Size) -> dict[str, Any]:
    """The rate of a bf16 product of random matrices, ten of them a dispatch."""
    count = 2 if size.side < 100 else 10
    right = normal((size.side, size.side), jnp.bfloat16, 0, size.side**-0.5)
    left = normal((size.side, size.side), jnp.bfloat16, 1)

    def chain(left, right):
        for _ in range(count):
            left = left @ right
        return left

    program = compile_program(chain, left, right)
    spent = seconds(program.run, (left, right), size.repeats) / count
    rate = 2 * size.side**3 / spent / 1e12
    return {"ms": 1e3 * spent, "TFLOP/s": rate, "compile s": program.seconds}


def make_run(size: Size, px: int, batch: int) -> Run:
    """The run of one row."""
    run = base(size.student, size.teacher, 1000, batch, px)
    teacher = TrainFirst(
        ModelConfig(name=size.teacher, resolution=px), precision="bfloat16"
    )
    return dataclasses.replace(run, teacher=teacher)


@functools.cache
def variables(name: str, px: int, seed: int) -> tuple[Any, Any]:
    """A network and random values for its variables."""
    model = kdjax.make_model(ModelConfig(name=name, resolution=px), CLASSES)
    return model, random_variables(model, px, seed)


def make_step(size: Size, px: int, batch: int) -> tuple[Prepared, Program]:
    """The compiled step at one batch."""
    run = make_run(size, px, batch)
    count = max(2 * batch, 16)
    data = dict(splits(count, px, CLASSES))
    train = setup.load_source(run, "train", data)
    # One resolution's variables fit another's: no layer depends on it.
    teacher = BoundModel(*variables(size.teacher, size.resolutions[0], 1), None, px)
    teacher = setup.cast(teacher, "bfloat16")
    _, start = variables(size.student, size.resolutions[0], 2)
    ready = prepare(run, train, teacher, start=start)
    return ready, compile_call(ready, 1)


def step_row(size: Size, px: int, rate: float | None) -> dict[str, Any]:
    """The row of one resolution, at the largest batch that fits."""
    sizes = list(size.batches)
    while True:
        try:
            return at_batch(size, px, sizes[0], rate)
        except TooLarge as error:
            if len(sizes) == 1:
                raise
            share = error.share
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or len(sizes) == 1:
                raise
            share = 1.0
        # Memory grows with the batch; go at once to the one that should fit.
        smaller = [b for b in sizes[1:] if b <= share * sizes[0]]
        sizes = smaller or sizes[-1:]


def at_batch(size: Size, px: int, batch: int, rate: float | None) -> dict[str, Any]:
    """Images a second, operations and memory of one batch."""
    before = peak()
    ready, program = make_step(size, px, batch)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None and program.mib * MIB > limit:
        raise TooLarge(program.mib, limit)
    one = jax.tree.map(lambda x: x[None], next(ready.batches(0)))
    flops = count_flops(ready.call.call, ready.state, one, ready.given)
    spent = timed(turns(ready, program, size.steps), size.repeats) / size.steps
    values = {
        "batch": batch,
        "images/s": batch / spent,
        "ms a step": 1e3 * spent,
        "GFLOP an image": flops / batch / 1e9,
        "TFLOP/s": flops / spent / 1e12,
    }
    if rate:
        values["share of the matrix rate"] = flops / spent / 1e12 / rate
    values |= {"compile s": program.seconds, "program MiB": program.mib}
    return values | show_peak(before)


def timed(running: Any, repeats: int) -> float:
    """The median of some turns after one that warms up."""
    next(running)
    return statistics.median(next(running) for _ in range(repeats))
