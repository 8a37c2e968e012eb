"""Hours of a sweep, estimated from runs that are finished; needs no JAX."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kdjax.core import runlog
from kdjax.experiments.experiment import Experiment, run_folder


class Timed(NamedTuple):
    """A finished run: seconds of all its seeds together, and the machine."""

    seconds: float
    seeds: int
    machine: str


def describe_costs(experiment: Experiment, scale: str) -> str:
    """The runs of a sweep and their hours, with the machine that these are from.

    Hours are from runs finished in the sweep's folder, or else from the records beside
    the experiment's file. A run without a record takes the mean time per step of its
    variant, or of all variants. Teachers that are trained first are not included.
    """
    steps = {
        run_folder(variant, times): experiment.run(variant, scale, times).steps
        for variant in experiment.variants
        for times in experiment.times(scale)
    }
    here = _finished(experiment.folder(scale))
    timed = here or _recorded(experiment, scale)
    timed = {name: run for name, run in timed.items() if name in steps}
    count = f"{len(steps)} runs"
    if not timed:
        return f"{count}, {sum(steps.values()):,} steps, hours not measured"
    seconds = _extrapolate(steps, {name: run.seconds for name, run in timed.items()})
    seeds = sorted({run.seeds for run in timed.values()})
    many = "1 seed" if seeds == [1] else f"{'/'.join(map(str, seeds))} seeds"
    machines = " and ".join(sorted({run.machine for run in timed.values()}))
    source = "finished here" if here else "recorded"
    return (
        f"{count}, {seconds / 3600:.1f} h for {many} as {len(timed)} of them {source} "
        f"on {machines}"
    )


def _extrapolate(steps: dict[str, int], seconds: dict[str, float]) -> float:
    """Seconds of all runs, from those of some of them, by folder."""
    paces: dict[str, list[float]] = {}
    for name, spent in seconds.items():
        paces.setdefault(_variant(name), []).append(spent / steps[name])
    typical = [pace for each in paces.values() for pace in each]
    return sum(
        seconds.get(name, count * float(np.mean(paces.get(_variant(name), typical))))
        for name, count in steps.items()
    )


def _variant(folder: str) -> str:
    return folder.rpartition("-x")[0]


def _finished(root: pathlib.Path) -> dict[str, Timed]:
    summaries = ((x.parent.name, _read(x)) for x in root.glob("*/summary.json"))
    return {name: timed for name, x in summaries if (timed := _parse(x)) is not None}


def _recorded(experiment: Experiment, scale: str) -> dict[str, Timed]:
    """The runs of `results/FILE-SCALE/records.jsonl` beside the experiment's file."""
    folder = experiment.path.parent / "results" / f"{experiment.path.stem}-{scale}"
    lines = _read_lines(folder / "records.jsonl")
    parsed = ((line.get("run", ""), _parse(line.get("summary"))) for line in lines)
    return {name: timed for name, timed in parsed if timed is not None}


def _read(path: pathlib.Path) -> dict | None:
    try:
        return runlog.read_json(path)
    except runlog.RunFolderError:
        return None


def _read_lines(path: pathlib.Path) -> Iterator[dict]:
    """The lines of a file; none of a file that is missing or no JSON."""
    try:
        yield from (json.loads(line) for line in path.read_bytes().splitlines()[1:])
    except (OSError, ValueError):
        return


def _parse(summary: dict | None) -> Timed | None:
    try:
        summary = summary or {}
        seconds, seeds = float(summary["seconds"]), len(summary["seeds"])
        # Older records say "1 CPU cores".
        machine = re.sub(r"\b1 CPU cores", "1 CPU core", str(summary["machine"]))
        return Timed(seconds, seeds, machine)
    except (KeyError, TypeError, ValueError):
        return None
