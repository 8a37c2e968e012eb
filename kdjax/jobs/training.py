"""Training one run in its folder, from where it left off."""

import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np

from kdjax import config as configs
from kdjax import reports, setup
from kdjax.cache.plan import describe_targets
from kdjax.config import Run
from kdjax.core import hosts, runlog
from kdjax.core.types import BoundModel
from kdjax.data.source import Source
from kdjax.jobs.start import Job, lock_folder
from kdjax.models import zoo
from kdjax.setup import Parts
from kdjax.setup.identity import (
    fingerprint_student,
    fingerprint_teacher,
    make_identity,
)
from kdjax.train import compiled, loop, sharding
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.progress import Bar
from kdjax.train.trackers import open_trackers


def train_one(
    run: Run,
    folder: pathlib.Path,
    job: Job,
    load_teacher: Callable[[], BoundModel | None],
) -> pathlib.Path:
    """Train one run in its folder, from where it left off, and measure it."""
    if runlog.is_finished(folder):
        job.console.print(f"{run.name}: finished in {folder}", highlight=False)
        return folder
    teacher, train = load_teacher(), job.data["train"]
    parts = setup.make_parts(run, train=train, student=job.student, teacher=teacher)
    content = {
        **job.content,
        **fingerprint_teacher(teacher),
        **fingerprint_student(run, train, job.student, parts.start),
    }
    with lock_folder(folder, make_identity(run, job.overrides, content)):
        _train(parts, teacher, folder, job)
    return folder


def _train(
    parts: Parts, teacher: BoundModel | None, folder: pathlib.Path, job: Job
) -> None:
    run = parts.run
    targets = describe_targets(run, parts.train)
    if targets:
        job.console.print(f"{run.name}: targets: {targets}", highlight=False)
    checkpoints = Checkpoints(folder)
    try:
        own = BoundModel(parts.student, None, 0, run.model.resolution)
        central = run.views.evaluation_crop
        measure = setup.make_measure(own, teacher, run.seeds, parts.mesh, central)

        def held_out(state: Any, split: str) -> dict[str, list[float]]:
            return measure(setup.student_variables(parts, state), job.data[split])

        state, seconds = _fit(parts, held_out, folder, checkpoints, job.console)
        test = held_out(state, "test")
        parameters = (
            zoo.count_parameters(setup.student_variables(parts, state)) // run.seeds
        )
    finally:
        checkpoints.close()
    hosts.wait_for_all(f"measured {folder}")
    if hosts.is_first():
        summary = _summary(run, job.data, test, parameters, seconds)
        summary["network"] = parts.strategy.student
        if targets:
            summary["targets"] = targets
        runlog.write_json(folder / "summary.json", summary)
        reports.write_report([folder], folder)
    # Else another process might look for the summary before it is there.
    hosts.wait_for_all(f"finished {folder}")


def _summary(
    run, data: dict[str, Source], test, parameters: int, seconds: float
) -> dict:
    train = data["train"]
    return {
        "name": run.name,
        "steps": run.steps,
        "examples": len(train),
        "seeds": list(range(run.seed, run.seed + run.seeds)),
        "parameters": parameters,
        "classes": train.classes,
        "class_names": train.names,
        "channels": train.shape[-1],
        "left_out": {k: len(v.skipped) for k, v in data.items() if v.skipped},
        "seconds": round(seconds, 1),
        "test": test,
        "command": _command(),
        "machine": _machine(),
        "versions": _versions(),
    }


def _fit(parts, held_out, folder, checkpoints, console):
    """Train from the last checkpoint, or from the beginning, to the end."""
    run, mesh = parts.run, parts.mesh
    call = compiled.compile_step(
        parts.step, mesh, parts.given_axes, run.seeds, run.compute.how
    )
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)
    start, seconds = checkpoints.last_step() or 0, 0.0
    made = parts.make_state, mesh, seeds, parts.start
    if start:
        like = sharding.abstract_sharded(*made)
        state = checkpoints.restore(like)
        lines = [x for x in runlog.read_metrics(folder) if x["step"] <= start]
        seconds = lines[-1]["seconds"] if lines else 0.0
        console.print(f"{run.name}: continuing at step {start}", highlight=False)
    else:
        state = sharding.create_sharded(*made)
    # What an interrupted run wrote after its last checkpoint will be written again.
    if hosts.is_first():
        runlog.truncate_metrics(folder, start)
    trackers = run.trackers if hosts.is_first() else ()
    tracked = open_trackers(trackers, folder, run.name, configs.to_dict(run))
    with Bar(run.name, run.steps, start, console) as bar, tracked as track:

        def write(line: dict[str, Any]) -> None:
            if hosts.is_first():
                runlog.append_metrics(folder, line)
                track(line)

        try:
            return loop.fit(
                call,
                state,
                setup.place_given(parts),
                setup.make_plan(parts),
                batches=setup.make_batches(parts),
                evaluate=lambda state: held_out(state, "validation"),
                write=write,
                checkpoints=checkpoints,
                bar=bar,
                seconds=seconds,
            )
        except loop.NonFiniteError as error:
            checkpoints.wait()
            last = checkpoints.last_step()
            kept = f"step {last}" if last else "none yet"
            text = f"{run.name}: {error}. Last good checkpoint: {kept}"
            raise loop.NonFiniteError(text) from None
        except loop.Interrupted as error:
            text = f"{run.name}: {error}; the same command continues there"
            raise loop.Interrupted(text, error.number) from None


def _command() -> str:
    """The command that made a run, as it can be typed again."""
    name = pathlib.Path(sys.argv[0]).name
    if name == "kdjax" or name == "__main__.py":
        return shlex.join(["kdjax", *sys.argv[1:]])
    return f"called from Python ({name or 'interactive'})"


def _machine() -> str:
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    cores = _cores()
    return f"{kind}, {platform.machine()}, {cores} CPU core{'s' * (cores != 1)}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def _versions() -> dict[str, str]:
    names = ("kdjax", "jax", "flax", "optax", "orbax-checkpoint")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    commit = _commit()
    if commit:
        found["kdjax"] += f" ({commit})"
    return found


def _commit() -> str:
    """The commit that kdjax runs from, a + after it if files have changed since; empty
    where it is no checkout."""
    here = pathlib.Path(__file__).resolve()
    asked = ["ls-files", "--error-unmatch", here.name], ["describe", "--always"]
    options = {"cwd": here.parent, "capture_output": True, "text": True}
    try:
        own, named = (subprocess.run(["git", *a], **options) for a in asked)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], **options)
    except OSError:
        return ""
    if own.returncode or named.returncode:
        return ""
    return named.stdout.strip() + ("+" if changed.returncode else "")
