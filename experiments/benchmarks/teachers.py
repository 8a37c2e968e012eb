"""What a teacher costs a step: live, replayed from a store, and none.

    python experiments/benchmarks/teachers.py [--repeats N] [--teacher NAME]

The same student, batch and views in three compiled steps that take turns, so that
whatever else the machine does weighs on all; a ratio is the median of the ratios of the
turns. A step begins with asking for its batch (reading the store included) and ends
with its loss on the host. Images are random numbers: the cost does not depend on them.
"""

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import kdjax
from kdjax import build
from kdjax.config import Cache, Data, Model, Optim, Run, Scalar, Teacher, Term, Views
from kdjax.teachers.cached import bytes_per_view
from kdjax.train import compiled, sharding

CLASSES = 10


def base(student: str, teacher: str, steps: int, batch: int) -> Run:
    return Run(
        name="benchmark",
        data=Data(train="train", validation="validation", test="validation"),
        model=Model(name=student, resolution=32),
        teacher=Teacher(model=Model(name=teacher, resolution=32)),
        views=Views(mode="function_matching"),
        terms={"soft": Term(temperature=Scalar(2.0))},
        baselines=(),
        optim=Optim(warmup=0),
        seeds=1,
        steps=steps,
        batch=batch,
    )


def splits() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (512, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(512) % CLASSES
    return {"train": (images, labels), "validation": (images[:64], labels[:64])}


def stepper(run: Run, train, teacher) -> Iterator[float]:
    """Seconds of one update after another."""
    parts = build.make_parts(run, train=train, teacher=teacher)
    call = compiled.compile_step(
        parts.step, parts.mesh, parts.given_axes, 1, run.compute.how
    )
    seeds = np.arange(1, dtype=np.int32)
    state = sharding.create_sharded(parts.make_state, parts.mesh, seeds, parts.start)
    running, given = call.enter(state), build.place_given(parts)
    coming = build.make_batches(parts)(0)
    while True:
        start = time.perf_counter()
        batch = jax.tree.map(lambda x: x[None], next(coming))
        running, metrics = call.call(running, batch, given)
        jax.device_get(metrics["loss"])
        yield time.perf_counter() - start


def measure(run: Run, repeats: int, folder: str) -> dict[str, list[float]]:
    data, asked = splits(), run.teacher
    assert asked is not None
    model = kdjax.make_model(asked.model, CLASSES)
    image = np.zeros((1, 32, 32, 3), np.float32)
    variables = model.init(jax.random.key(1), image)
    cached = dataclasses.replace(
        run,
        teacher=dataclasses.replace(asked, cache=Cache(path=f"{folder}/store")),
    )
    kdjax.cache_targets(cached, splits=data, teacher=(model, variables))
    train = build.load_source(run, "train", data)
    teacher = build.Trained(model, variables, None, 32)
    hard = {"hard": Term("hard_cross_entropy", teacher="labels")}
    plain = dataclasses.replace(run, terms=hard)
    steps = {
        "none": stepper(plain, train, None),
        "cached": stepper(cached, train, teacher),
        "live": stepper(run, train, teacher),
    }
    for step in steps.values():
        # The first compiles, the second finds warm caches.
        for _ in range(2):
            next(step)
    turns = {name: [] for name in steps}
    for turn in range(repeats):
        names = list(steps)[:: 1 if turn % 2 else -1]
        for name in names:
            turns[name].append(next(steps[name]))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/benchmark-teachers.md"
    )
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    run = base(options.student, options.teacher, options.repeats + 4, options.batch)
    with tempfile.TemporaryDirectory() as folder:
        run = dataclasses.replace(run, workdir=f"{folder}/run")
        turns = measure(run, options.repeats, folder)
    lines = ["| teacher | ms a step | beside no teacher |", "|---|---|---|"]
    for name, times in turns.items():
        pairs = zip(times, turns["none"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        lines.append(f"| {name} | {1e3 * statistics.median(times):.1f} | {ratio:.2f} |")
    size = {k: bytes_per_view(1000, k) for k in (0, 10)}
    device = jax.devices()[0]
    lines += [
        "",
        f"{options.student} under {options.teacher}, 32 x 32, batch {options.batch}, "
        f"{options.repeats} turns; jax {jax.__version__}, {device.device_kind}. "
        "The cached step should cost at most 1.05 of the one without a teacher.",
        f"A stored view of 1 000 classes takes {size[0]} bytes with all of them, "
        f"{size[10]} with 10 (4 + 4 K).",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
