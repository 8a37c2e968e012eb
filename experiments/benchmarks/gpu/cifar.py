"""Part `cifar`: ResNet-56 to ResNet-20, bare floor against kdjax's full loop."""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np

import kdjax
from experiments.benchmarks.common import HARD, base, prepare, splits
from experiments.benchmarks.gpu import torch_pair, toys
from experiments.benchmarks.gpu.steps import (
    Floor,
    compile_call,
    loop_seconds,
    peak,
    random_variables,
    show_peak,
)
from experiments.benchmarks.gpu.tables import Table
from kdjax import setup
from kdjax.config import (
    Cache,
    Compute,
    ModelConfig,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    replace_cache,
)
from kdjax.core.types import BoundModel

FLOOR, LOOP, TORCH = "bare floor", "full loop", "PyTorch"
CLASSES = 10


class Size(NamedTuple):
    """Networks and lengths of the part.

    window: steps between two log lines; every program's steps a dispatch divide it.
    """

    student: str
    teacher: str
    batches: tuple[int, int]
    calls: tuple[int, ...]
    images: int
    window: int
    windows: int


FULL = Size("resnet20", "resnet56", (128, 512), (1, 8, 32), 50_000, 64, 6)
DRY = Size(toys.CIFAR, toys.CIFAR, (4, 8), (1, 2), 64, 2, 2)


class Variant(NamedTuple):
    """A full loop of the table: what differs from the usual one."""

    batch: int
    per_call: int
    teacher: str = "live"
    seeds: int = 1
    unroll: bool | None = None
    precision: str = "float32"


def variants(size: Size) -> dict[str, Variant]:
    """The rows of the full loop, the most telling first."""
    small, large = size.batches
    usual = size.calls[-1]
    rows = {
        f"batch {large}": Variant(large, usual),
        f"batch {large}, cached": Variant(large, usual, "cached"),
        f"batch {large}, no teacher": Variant(large, usual, "none"),
        f"batch {small}": Variant(small, usual),
    }
    for calls in size.calls[:-1]:
        rows[f"batch {small}, {calls} a dispatch"] = Variant(small, calls)
    seeds = {"by vmap": False, "written out": True}
    for how, unroll in seeds.items():
        rows[f"batch {small}, 3 seeds {how}"] = Variant(
            small, usual, seeds=3, unroll=unroll
        )
    half = Variant(small, usual, precision="bfloat16")
    return {**rows, f"batch {small}, teacher in bfloat16": half}


def load_data(size: Size, file: pathlib.Path | None) -> dict[str, Any]:
    """Both splits: synthetic images, or those of a file."""
    if file is None:
        return dict(splits(size.images))
    with np.load(file) as arrays:
        pair = arrays["images"], arrays["labels"]
    return {"train": pair, "validation": tuple(x[:64] for x in pair)}


class Bench:
    """Data, teacher and floors that the rows share."""

    def __init__(self, size: Size, data: dict[str, Any], folder: pathlib.Path):
        self.size, self.data, self.folder = size, data, folder
        self.student, self.teacher = (
            self._network(name, seed)
            for seed, name in enumerate((size.student, size.teacher))
        )
        self.floors: dict[int, Floor] = {}

    def _network(self, name: str, seed: int) -> tuple[Any, Any]:
        model = kdjax.make_model(
            ModelConfig(name=name, norm="batch", resolution=32), CLASSES
        )
        return model, random_variables(model, 32, seed)

    def floor(self, batch: int) -> dict[str, Any]:
        """The row of a bare floor, which later rows take turns with."""
        before = peak()
        images = np.random.default_rng(0).uniform(-1, 1, (batch, 32, 32, 3))
        floor = Floor(self.student, self.teacher, images.astype(np.float32))
        self.floors[batch] = floor
        floor.turn(self.size.window)
        turns = [floor.turn(self.size.window) for _ in range(self.size.windows)]
        spent = statistics.median(turns) / self.size.window
        return {
            "images/s": batch / spent,
            "ms a step": 1e3 * spent,
            "compile s": floor.program.seconds,
            "program MiB": floor.program.mib,
            **show_peak(before),
        }

    def loop(self, name: str, variant: Variant) -> dict[str, Any]:
        """The row of a full loop, its windows taking turns with the floor."""
        before, size = peak(), self.size
        floor = self.floors.get(variant.batch)
        run, teacher = make_run(size, variant), None
        train = setup.load_source(run, "train", self.data)
        if variant.teacher != "none":
            teacher = BoundModel(*self.teacher, None, 32)
            teacher = setup.cast(teacher, variant.precision)
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        if variant.teacher == "cached":
            run = self._cache(run)
        start = self.student[1]
        ready = prepare(run, train, teacher, start=start, unroll=variant.unroll)
        program = compile_call(ready, variant.per_call)
        floors: list[float] = []

        def between() -> None:
            if floor is not None:
                floors.append(floor.turn(size.window))

        windows = loop_seconds(ready, program, folder, between)
        # Totals: a median would leave out the windows that save.
        spent = sum(windows) / len(windows) / size.window
        images = variant.batch * variant.seeds
        values: dict[str, Any] = {"images/s": images / spent}
        if floors:
            # The floor's turn after a window is as near to it as the one before.
            values["ratio to the floor"] = ratio(floors[1:], windows) * variant.seeds
        values |= {"ms a step": 1e3 * spent}
        values |= {"compile s": program.seconds, "program MiB": program.mib}
        return values | show_peak(before)

    def _cache(self, run: Run) -> Run:
        """The run with its targets stored; the store is made here."""
        assert run.teacher is not None
        cache = Cache(path=str(self.folder / "store"))
        teacher = replace_cache(run.teacher, cache)
        run = dataclasses.replace(run, teacher=teacher)
        kdjax.cache_targets(run, splits=self.data, teacher=self.teacher)
        return run


def ratio(floors: list[float], windows: list[float]) -> float:
    """The rate of a loop over that of the floor, from the seconds of equal turns."""
    return sum(floors) / sum(windows)


def make_run(size: Size, variant: Variant) -> Run:
    """The run of a row: the usual CIFAR recipe with the paper's views."""
    steps = size.window * (size.windows + 1)
    run = base(size.student, size.teacher, steps, variant.batch)
    teacher = TrainFirst(
        ModelConfig(name=size.teacher, norm="batch", resolution=32),
        precision="bfloat16" if variant.precision == "bfloat16" else "float32",
    )
    changes: dict[str, Any] = {"terms": HARD} if variant.teacher == "none" else {}
    return dataclasses.replace(
        run,
        **{"terms": {"soft": Term(temperature=Scalar(4.0))}, **changes},
        model=ModelConfig(name=size.student, norm="batch", resolution=32),
        teacher=teacher,
        optim=Optim("sgd", lr=0.05, wd=5e-4, warmup=0),
        seeds=variant.seeds,
        evaluate_every=steps,
        checkpoint_every=3 * size.window,
        log_every=size.window,
        compute=Compute(steps_per_call=variant.per_call),
    )


def measure(table: Table, options: argparse.Namespace) -> None:
    """All rows, the most telling first; each floor before the loops at its batch."""
    size = DRY if options.dry else FULL
    rows = variants(size)
    floors = {f"batch {b}": b for b in sorted(size.batches, reverse=True)}
    table.plan(FLOOR, floors)
    table.plan(LOOP, rows)
    table.plan(TORCH, torch_pair.names(size.batches))
    data = load_data(size, options.cifar)
    notes(table, size, len(data["train"][0]))
    torch_pair.note(table)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(size, data, pathlib.Path(name))
        for row, variant in rows.items():
            if row in floors:
                floor = functools.partial(bench.floor, variant.batch)
                table.measure(FLOOR, row, floor)
            table.measure(LOOP, row, functools.partial(bench.loop, row, variant))
            if row == list(floors)[-1]:
                # Before the rows of detail, so that some time is left for it.
                torch_pair.measure(table, TORCH, size.batches, options.dry)


def notes(table: Table, size: Size, images: int) -> None:
    """The meaning of the columns."""
    every, where = 3 * size.window, jax.devices()[0].platform
    table.note(
        f"{size.teacher} to {size.student}, BatchNorm, 32 px, {images:,} images "
        f"resident on the {where}; float32 (TF32 products on GPU); "
        f"{size.calls[-1]} steps a dispatch where a row names no other number."
    )
    table.note(
        f"The full loop draws crops, flips and mixup, clips, logs every {size.window} "
        f"steps and saves every {every}. Evaluation is left out."
    )
    table.note(
        "`ratio to the floor` is images/s of the loop over those of the bare floor at "
        "the same batch, over the total time of turns that alternate, saves included."
    )
    table.note(
        "3 seeds one after another in one program are `written out`; as three runs "
        "they have the images/s of one seed."
    )
