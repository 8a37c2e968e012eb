"""Circumstances of a benchmark, and the synthetic distillation that several time."""

import datetime
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import setup
from kdjax.config import Data, ModelConfig, Optim, Run, Scalar, Term, TrainFirst, Views
from kdjax.core.types import PyTree
from kdjax.train import compiled, sharding

HARD = {"hard": Term("hard_cross_entropy", teacher="labels")}


def processor() -> str:
    """Name and cores of the CPU."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return f"{names[0] if names else 'processor not known'}, {os.cpu_count()} cores"


def circumstances(command: str) -> str:
    """Where, when and of what the numbers are."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    device, load = jax.devices()[0], os.getloadavg()[0]
    return "\n".join(
        [
            f"- command: `{command}`",
            f"- machine: {processor()}; load {load:.1f} at the end",
            f"- device: {device.platform} ({device.device_kind})",
            f"- jax {jax.__version__}, Python {platform.python_version()}",
            f"- commit: {commit.strip() or 'not known'}; {datetime.date.today()}",
        ]
    )


def base(student: str, teacher: str, steps: int, batch: int, size: int = 32) -> Run:
    """A distillation on arrays, both networks with GroupNorm at one resolution."""
    return Run(
        name="benchmark",
        data=Data("digits", train="train", validation="validation", test="validation"),
        model=ModelConfig(name=student, resolution=size),
        teacher=TrainFirst(ModelConfig(name=teacher, resolution=size)),
        views=Views(mode="function_matching"),
        terms={"soft": Term(temperature=Scalar(2.0))},
        baselines=(),
        optim=Optim(warmup=0),
        seeds=1,
        steps=steps,
        batch=batch,
    )


def splits(count: int = 512, size: int = 32, classes: int = 10) -> dict[str, Any]:
    """Random images with labels; the first of them are the validation split."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    labels[-1] = classes - 1
    return {"train": (images, labels), "validation": (images[:64], labels[:64])}


class Prepared(NamedTuple):
    """A run ready to step: its parts, programs, state, constants and batches."""

    parts: setup.Parts
    call: compiled.Compiled
    state: Any
    given: PyTree
    batches: Callable[[int], Iterator[dict[str, Any]]]


def prepare(
    run: Run, train, teacher, *, start: PyTree = None, unroll: bool | None = None
) -> Prepared:
    """Everything that a job makes before its first step.

    start: the student's variables; None draws them. unroll: as in `compile_step`.
    """
    initial = None
    if start is not None:
        initial = {"student": setup.InitialVariables(start)}
    parts = setup.make_parts(run, train=train, teacher=teacher, initial=initial)
    call = compiled.compile_step(
        parts.step,
        parts.mesh,
        parts.constant_axes,
        run.seeds,
        run.compute.how,
        unroll=unroll,
    )
    seeds = np.arange(run.seeds, dtype=np.int32)
    state = sharding.create_sharded(parts.make_state, parts.mesh, seeds, parts.start)
    given = setup.place_constants(parts)
    return Prepared(parts, call, call.enter(state), given, setup.make_batches(parts))
