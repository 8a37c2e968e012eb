"""Part `laws`: the default kernels and the digits job, GPU against CPU."""

import argparse
import dataclasses
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.gpu import toys
from experiments.benchmarks.gpu.machine import die_with_parent, for_child
from experiments.benchmarks.gpu.tables import LATE, Skip, Table
from kdjax import losses, presets
from kdjax.config import ModelConfig, Optim, Run, TrainFirst

KERNELS, JOB = "kernel, against CPU", "digits job"
# The largest error that is no surprise, relative to the largest number.
MOST = {"float32": 2e-3, "float32, highest": 1e-4, "bfloat16": 3e-2}

# Metrics of a digits job: the column and the factor.
SHOWN = {"accuracy": ("accuracy %", 100), "agreement": ("agreement %", 100)}
SHOWN["kl"] = ("kl nats", 1)


class Case(NamedTuple):
    """A kernel on random inputs; the gradient is of the first of them."""

    function: Callable[..., jax.Array]
    inputs: tuple[np.ndarray, ...]


def cases(dry: bool) -> dict[str, Case]:
    """The kernels that runs use by default."""
    rng, n = np.random.default_rng(0), 16 if dry else 256

    def normal(*shape: int, scale: float = 3.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    pair = normal(n, 100), normal(n, 100)
    rows = normal(n // 4, 64), normal(n // 4, 64)
    maps = normal(n // 4, 8, 8, 16), normal(n // 4, 8, 8, 16)
    labels = np.arange(n) % 100
    words = 128 if dry else 8192
    tokens = normal(n, 64, scale=1.0), normal(64, words, scale=0.3)
    hot = functools.partial(losses.softmax_kl, temperature=4.0)

    def linear(hidden, head, teacher_hidden, teacher_head):
        return losses.linear_softmax_kl(hidden, head, teacher_hidden, teacher_head)

    few = {
        "softmax_kl, T = 4": Case(hot, pair),
        "hard_cross_entropy": Case(losses.hard_cross_entropy, (pair[0], labels)),
        "linear_softmax_kl": Case(linear, (*tokens, tokens[0] + 0.1, tokens[1])),
        "rkd_distance": Case(losses.rkd_distance, rows),
    }
    more = {
        "softmax_kl, T = 1": Case(losses.softmax_kl, pair),
        "soft_cross_entropy": Case(losses.soft_cross_entropy, pair),
        "logit_mse": Case(losses.logit_mse, pair),
        "hint_l2": Case(losses.hint_l2, maps),
        "rkd_angle": Case(losses.rkd_angle, rows),
    }
    return few if dry else {**few, **more}


def measure(table: Table, options: argparse.Namespace) -> None:
    """Start both digits jobs, compare the kernels meanwhile, then read the jobs."""
    kernels = cases(options.dry)
    jobs = ("teacher", "student") if options.dry else ("teacher", "labels", "student")
    kinds = {"float32": {}, "bfloat16": {}, "float32, highest": {}}
    names = {f"{n}, {k}": (n, k) for k in kinds for n in kernels}
    table.plan(KERNELS, names)
    table.plan(JOB, jobs)
    table.note(
        "An error is the largest difference over the largest number of the CPU's. "
        "`highest` forbids TF32 products; the other float32 rows have the default."
    )
    table.note(
        "The digits jobs run beside the kernels, one on each device: seconds are no "
        "measure of speed. They leave the baseline with mixup out."
    )
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        start = functools.partial(start_digits, folder, dry=options.dry)
        processes = [start("gpu")]
        # A dry run waits, so that the second job finds the first one's programs.
        processes += [] if options.dry else [start("cpu")]
        for row, (name, kind) in names.items():
            table.measure(KERNELS, row, functools.partial(errors, kernels[name], kind))
        ended = {"gpu": wait(table, processes[0])}
        processes += [start("cpu")] if options.dry else []
        ended["cpu"] = wait(table, processes[1])
        for job in jobs:
            # Files are read in no time: also of jobs that took all the time.
            read = functools.partial(compare, folder, job, ended)
            table.measure(JOB, job, read, least=-math.inf)


def wait(table: Table, process: subprocess.Popen) -> int | None:
    """Wait for a job for as long as the part may; its status, None if it is killed."""
    try:
        return process.wait(timeout=max(table.left() - 4, 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def errors(case: Case, kind: str) -> dict[str, Any]:
    """Largest relative errors of the values and of the gradient."""
    dtype, _, precision = kind.partition(", ")

    def value(first, *rest):
        return jnp.mean(case.function(first, *rest).astype(jnp.float32))

    def both(*inputs):
        return case.function(*inputs), jax.grad(value)(*inputs)

    found = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        inputs = [
            jax.device_put(jnp.asarray(x, dtype) if x.dtype.kind == "f" else x, device)
            for x in case.inputs
        ]
        # Here, not around the loop: the option belongs to the traced program.
        with jax.default_matmul_precision(precision or "default"):
            found.append(jax.device_get(jax.jit(both)(*inputs)))
    worst = [relative(a, b) for a, b in zip(*found, strict=True)]
    met = "yes" if max(worst) <= MOST[kind] else "no"
    return {"values": worst[0], "gradient": worst[1], "most": MOST[kind], "met": met}


def relative(a: Any, b: Any) -> float:
    """The largest difference over the largest number; infinite for NaN."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    error = np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30)
    return float(error) if np.isfinite(error) else float("inf")


def digits(folder: pathlib.Path, dry: bool) -> Run:
    """The demonstration job of `kdjax distill`, shortened."""
    steps = 2 if dry else 400
    optim = Optim(warmup=1 if dry else 50)
    run = presets.digits(workdir=str(folder), steps=steps, optim=optim)
    assert isinstance(run.teacher, TrainFirst)
    teacher = dataclasses.replace(run.teacher, steps=steps, optim=optim)
    run = dataclasses.replace(run, teacher=teacher)
    run = dataclasses.replace(run, evaluate_every=steps, checkpoint_every=steps)
    if not dry:
        return dataclasses.replace(run, baselines=("labels",))
    toy = ModelConfig(name=toys.CIFAR, resolution=8)
    teacher = dataclasses.replace(teacher, model=toy)
    return dataclasses.replace(run, model=toy, teacher=teacher, seeds=1, baselines=())


def start_digits(folder: pathlib.Path, name: str, dry: bool) -> subprocess.Popen:
    """The digits job as a process on one of the devices."""
    env = for_child(os.environ)
    if name == "cpu":
        env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", __name__, str(folder / name)]
    return subprocess.Popen(command + (["--dry"] if dry else []), env=env)


def compare(
    folder: pathlib.Path, job: str, ended: dict[str, int | None]
) -> dict[str, Any]:
    """A run's results on the test split, GPU beside CPU.

    ended: the status of each device's job, None if it was killed.

    Raises:
      Skip: a device did not finish this run; with the results of the other.
    """
    values: dict[str, Any] = {}
    why: list[str] = []
    for name, status in ended.items():
        own = folder / name if job == "student" else folder / name / job
        if not (own / "summary.json").is_file():
            failed = f"error: the job on the {name} ended with status {status}"
            why.append(f"{LATE} on the {name}" if status is None else failed)
            continue
        summary = json.loads((own / "summary.json").read_text())
        for metric, (title, factor) in SHOWN.items():
            if metric in summary["test"]:
                mean = float(np.mean(summary["test"][metric]))
                values[f"{title}, {name}"] = factor * mean
        values[f"seconds, {name}"] = summary["seconds"]
    values = dict(sorted(values.items()))
    if why:
        # An error first, so that it counts as one.
        raise Skip("; ".join(sorted(why)), values)
    return values


def main() -> None:
    """Run the digits job."""
    die_with_parent()
    import kdjax

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    kdjax.distill(digits(options.folder, options.dry))


if __name__ == "__main__":
    main()
