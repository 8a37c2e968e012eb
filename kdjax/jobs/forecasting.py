"""Planning: what a run would need on hardware that is not there."""

import collections
import dataclasses
import datetime
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from kdjax import config as configs
from kdjax.config import ConfigError, Run, require
from kdjax.core import runlog
from kdjax.jobs.start import check_run
from kdjax.plan.compilers import environment, require_compiler
from kdjax.plan.forecast import Figures, from_values
from kdjax.plan.hardware import Hardware, check_layout, find_hardware
from kdjax.reports.plan_table import PLAN_FILE
from kdjax.train.progress import stage


def plan(
    run: Run,
    *,
    on: str,
    slices: int = 1,
    exact: bool = False,
    examples: int = 0,
    classes: int = 0,
    largest_batch: bool = False,
    minutes: float = 60.0,
    console: Console | None = None,
) -> list[Figures]:
    """Compile the step of each training of a run for hardware that is not there.

    The programs are those of `distill`, compiled by XLA's compiler for the hardware in
    a process of its own. Their figures are kept in the user's cache folder by the
    program's hash. No image is read, and nothing is written in the run folder.

    Args:
      run: as for `distill`.
      on: the hardware, as v5e-256, v5p-128 or h200x8 (`kdjax.plan.hardware`).
      slices: TPU slices of this size, joined by the network.
      exact: optimize as the hardware would, which takes several times longer.
      examples, classes: of training data that are not on this machine.
      largest_batch: find the largest batch of the last training that fits.
      minutes: after which the compiler is stopped.
      console: for progress and tables; by default none.

    Returns:
      The figures of each training, in order.

    Raises:
      ConfigError: a field that cannot be used, or a compiler that is not installed.
    """
    check_run(run)
    run.check()
    hardware = find_hardware(on, slices)
    check_layout(run, hardware)
    require_compiler(hardware)
    both = (examples > 0) == (classes > 0)
    require(both, "examples", "examples and classes together", (examples, classes))
    console = console or Console(quiet=True)
    request = {
        **{"run": configs.to_dict(run), "on": on, "slices": slices, "exact": exact},
        **{"examples": examples, "classes": classes, "largest_batch": largest_batch},
    }
    with stage(console, f"compiling for {on}"):
        figures = _compile(request, hardware, exact, minutes)
    console.print(table(figures, hardware))
    for line in _remarks(figures, hardware):
        console.print(line, highlight=False, soft_wrap=True)
    return figures


def _compile(
    request: dict[str, Any], hardware: Hardware, exact: bool, minutes: float
) -> list[Figures]:
    command = [sys.executable, "-m", "kdjax.jobs.planned"]
    variables = {**os.environ, **environment(hardware, exact)}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=variables,
            timeout=60 * minutes,
        )
    except subprocess.TimeoutExpired:
        reason = f"not compiled within {minutes:g} minutes; --minutes allows more"
        raise ConfigError("on", reason=reason) from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = [x for x in done.stderr.splitlines() if x.strip()] or ["nothing"]
        reason = f"the compiler ended with status {done.returncode}: {said[-1]}"
        raise ConfigError("on", reason=reason)
    answer = json.loads(lines[-1])
    if "error" in answer:
        field, _, reason = answer["error"].partition(": ")
        raise ConfigError(field, reason=reason)
    return [from_values(x) for x in answer["figures"]]


def table(figures: list[Figures], hardware: Hardware) -> Table:
    """The figures as a table, a training each column. Bytes are of one device."""
    found = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    found.add_column(f"{hardware.devices} x {hardware.chip.name}")
    for each in figures:
        found.add_column(each.name, justify="right", overflow="fold")
    for head, show in _ROWS.items():
        cells = [show(each, hardware) for each in figures]
        if any(cells):
            found.add_row(head, *(cell or "–" for cell in cells))
    return found


def _remarks(figures: list[Figures], hardware: Hardware) -> list[str]:
    """Sentences below the table."""
    lines = [f"{x.name} does not fit: {x.problem}" for x in figures if x.problem]
    if hardware.chip.flops:
        lines.append(
            "seconds are an estimate from public figures of the chip at its peak: a "
            "step takes at least as long"
        )
    return lines


def _held(name: str) -> Callable[[Figures, Hardware], str]:
    return lambda x, _: decimal(x.held[name]) if x.held[name] else ""


def _program(name: str) -> Callable[[Figures, Hardware], str]:
    return lambda x, _: decimal(x.program[name]) if x.program.get(name) else ""


def _fits(x: Figures, hardware: Hardware) -> str:
    fits = x.fits(hardware)
    if fits is None:
        return ""
    memory = decimal(int(hardware.chip.memory))
    return f"fits in {memory}" if fits else f"does not fit in {memory}"


def _crossing(between: bool) -> Callable[[Figures, Hardware], str]:
    def show(x: Figures, _: Hardware) -> str:
        sizes: collections.Counter = collections.Counter()
        for each in x.collectives:
            if each.between == between:
                sizes[each.kind] += each.size
        return ", ".join(f"{kind} {decimal(n)}" for kind, n in sizes.items())

    return show


def _least(x: Figures, hardware: Hardware) -> float:
    return max(x.least_seconds(hardware).values(), default=0.0)


def _parts(x: Figures, hardware: Hardware) -> str:
    parts = x.least_seconds(hardware)
    return ", ".join(f"{k} {1e3 * v:,.2f}" for k, v in parts.items() if v)


def _hours(x: Figures, hardware: Hardware, chips: int = 1) -> str:
    seconds = _least(x, hardware) * x.steps * chips
    return str(datetime.timedelta(seconds=round(seconds))) if seconds else ""


_ROWS: dict[str, Callable[[Figures, Hardware], str]] = {
    "batch": lambda x, _: f"{x.batch:,}",
    "seeds": lambda x, _: f"{x.seeds}",
    "parameters": _held("parameters"),
    "optimizer": _held("optimizer"),
    "statistics": _held("statistics"),
    "teacher": _held("teacher"),
    "data": _held("data"),
    "batches of a call": _held("batch"),
    "temporaries": _program("temporaries"),
    "code": _program("code"),
    "in all": _program("total"),
    "memory": _fits,
    "student: GFLOPs an image": lambda x, _: f"{x.student_flops / 1e9:,.3f}",
    "teacher: GFLOPs an image": (
        lambda x, _: f"{x.teacher_flops / 1e9:,.3f}" if x.teacher_flops else ""
    ),
    "GFLOPs a step": lambda x, _: f"{x.flops / 1e9:,.2f}",
    "moved a step": lambda x, _: decimal(int(x.accessed)) if x.accessed else "",
    "sent within a slice": _crossing(False),
    "sent between slices": _crossing(True),
    "milliseconds, each at its peak": _parts,
    "steps": lambda x, _: f"{x.steps:,}",
    "epochs": lambda x, _: f"{x.epochs:,.1f}",
    "images": lambda x, _: f"{x.steps * x.batch:,}",
    "time, at least": _hours,
    "chip time, at least": lambda x, h: _hours(x, h, x.devices),
    "to compile": lambda x, _: (
        f"{x.compile_seconds:,.1f} s" if x.compile_seconds else "kept"
    ),
}


def plan_to_json(figures: list[Figures], hardware: Hardware) -> str:
    """The figures with what follows from them, as JSON."""
    return json.dumps(_values(figures, hardware), indent=2)


def keep_plan(folder: runlog.Path, figures: list[Figures], hardware: Hardware) -> None:
    """Keep figures in a run folder, for its report; those of other hardware stay."""
    file = pathlib.Path(folder) / PLAN_FILE
    new = _values(figures, hardware)
    kept = runlog.read_json(file)["plans"] if file.is_file() else []
    kept = [x for x in kept if x["on"] != hardware.name]
    runlog.write_json(file, {"plans": [*kept, *new]})


def _values(figures: list[Figures], hardware: Hardware) -> list[dict[str, Any]]:
    return [
        {
            **dataclasses.asdict(x),
            "collectives": [each._asdict() for each in x.collectives],
            "fits": x.fits(hardware),
            "least_seconds": x.least_seconds(hardware),
        }
        for x in figures
    ]
