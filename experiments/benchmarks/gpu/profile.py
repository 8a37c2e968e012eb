"""Part `profile`: the largest costs by name of the CIFAR and the BiT step."""

import argparse
import collections
import dataclasses
import functools
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from experiments.benchmarks.common import Prepared, prepare
from experiments.benchmarks.gpu import bit, cifar
from experiments.benchmarks.gpu.steps import Program, compile_call, turns
from experiments.benchmarks.gpu.tables import Table
from kdjax import setup
from kdjax.core.types import BoundModel

COUNT = 5
# Characters of a name that the table shows.
WIDTH = 80
# Names of work that contains other work.
OUTER = ("while", "call", "conditional")


def measure(table: Table, options: argparse.Namespace) -> None:
    """The costs of both steps, each a table of its own."""
    makers = {"CIFAR step": cifar_step, "BiT step": bit_step}
    for name in makers:
        table.plan(name, ["trace"])
    table.note(
        "Costs are of one step a dispatch. Names that differ in their number alone "
        "are one cost; time is summed over the device's streams. "
        "A step that is traced is slower than one that is not."
    )
    for name, make in makers.items():
        found: list[tuple[str, int, float]] = []
        make = functools.partial(make, options)
        table.measure(name, "trace", functools.partial(trace, make, found))
        for order, (cost, calls, share) in enumerate(found, 1):
            values = {
                "cost": code(cost),
                "calls a step": calls,
                "share of device time": share,
            }
            table.put(name, f"{order}", values)


def cifar_step(options: argparse.Namespace) -> tuple[Prepared, Program, str]:
    """The live step of part `cifar` at its smaller batch."""
    size = cifar.DRY if options.dry else cifar.FULL
    variant = cifar.Variant(size.batches[0], 1)
    data = cifar.load_data(size, options.cifar)
    with tempfile.TemporaryDirectory() as name:
        bench = cifar.Bench(size, data, pathlib.Path(name))
    run = dataclasses.replace(cifar.make_run(size, variant), steps=1000)
    train = setup.load_source(run, "train", bench.data)
    teacher = BoundModel(*bench.teacher, None, 32)
    ready = prepare(run, train, teacher, start=bench.student[1])
    return ready, compile_call(ready, 1), f"batch {variant.batch}"


def bit_step(options: argparse.Namespace) -> tuple[Prepared, Program, str]:
    """The step of part `bit` at its first resolution, at the batch found there."""
    size = bit.DRY if options.dry else bit.FULL
    batch, file = size.batches[-1], options.folder / "bit.json"
    if file.exists():
        rows = json.loads(file.read_text())["rows"]
        found = [r["values"]["batch"] for r in rows if "batch" in r["values"]]
        batch = found[0] if found else batch
    px = size.resolutions[0]
    return (*bit.make_step(size, px, batch), f"{px} px, batch {batch}")


def trace(make: Any, found: list[tuple[str, int, float]]) -> dict[str, Any]:
    """Trace some steps; the largest costs go into `found`."""
    ready, program, shape = make()
    steps = 5
    running = turns(ready, program, steps)
    next(running)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            spent = next(running)
        events = list(device_events(pathlib.Path(folder)))
    if not events:
        raise RuntimeError("the profiler recorded nothing on the device")
    total = sum(seconds for _, seconds in events)
    found.extend(largest(events, steps))
    return {
        "cost": shape,
        "ms a step": 1e3 * spent / steps,
        "device ms a step": 1e3 * total / steps,
        "compile s": program.seconds,
    }


def largest(
    events: list[tuple[str, float]], steps: int
) -> list[tuple[str, int, float]]:
    """`(name, calls a step, share)` of the largest costs."""
    times: dict[str, float] = collections.defaultdict(float)
    calls: collections.Counter[str] = collections.Counter()
    for name, seconds in events:
        times[name] += seconds
        calls[name] += 1
    total = sum(times.values())
    return [
        (name, round(calls[name] / steps), seconds / total)
        for name, seconds in sorted(times.items(), key=lambda x: -x[1])[:COUNT]
    ]


def device_events(folder: pathlib.Path) -> Iterator[tuple[str, float]]:
    """`(name, seconds)` of what ran on the device, from the profiler's files.

    A GPU has planes of its own with a line a stream. On CPU the operations are lines
    of the host's plane and name the HLO operation that they run.
    """
    for file in sorted(folder.rglob("*.xplane.pb")):
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
        devices = [p for p in planes if p.name.startswith("/device:GPU")]
        for plane in devices or planes:
            lines = list(plane.lines)
            streams = [x for x in lines if x.name.startswith("Stream")]
            for line in streams if devices and streams else lines:
                for event in line.events:
                    if devices or is_operation(event):
                        yield family(event.name), 1e-9 * event.duration_ns


def is_operation(event: Any) -> bool:
    """Whether an event of the host's plane is an operation that contains no other."""
    outer = event.name.split(".")[0] in OUTER or event.name.startswith("end: ")
    return not outer and any(name == "hlo_op" for name, _ in event.stats)


def family(name: str) -> str:
    """A name without the number that tells it from others of its kind."""
    return re.sub(r"[._]\d+$", "", name)


def code(name: str) -> str:
    """A name as code of Markdown, its end left out where it is long."""
    name = name.replace("`", "'")
    return f"`{name if len(name) <= WIDTH else name[: WIDTH - 3] + '...'}`"
