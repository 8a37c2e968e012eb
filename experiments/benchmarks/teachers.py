"""What a teacher costs a step: live, replayed from a store, and none.

    PYTHONPATH=. python experiments/benchmarks/teachers.py [--out FILE] [--repeats N]

The same student, batch and views in three compiled steps that take turns, so that
whatever else the machine does weighs on all; a ratio is the median of the ratios of the
turns. A step begins with asking for its batch (reading the store included) and ends
with its loss on the host. Images and weights are random numbers: the cost does not
depend on them. Prints a Markdown table and writes it to FILE; `--student`, `--teacher`
and `--batch` change who is measured.
"""

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np

import kdjax
from experiments.benchmarks.common import HARD, base, circumstances, prepare, splits
from kdjax import setup
from kdjax.cache.targets import bytes_per_view
from kdjax.config import Cache, Run, TrainFirst, replace_cache
from kdjax.core.types import BoundModel

CLASSES, SEED = 10, 1
# Steps before the first that counts.
WARM = 2

INTRODUCTION = """# What a teacher costs a step

Live, replayed from a store, and none: the same student, batch and views in three steps
that take turns in one run. A ratio is the median over the turns, so it is not quite the
quotient of the two medians. See `teachers.py` for what a step is.
"""


def stepper(run: Run, train, teacher) -> Iterator[float]:
    """Seconds of one update after another."""
    ready = prepare(run, train, teacher)
    running, coming = ready.state, ready.batches(0)
    while True:
        start = time.perf_counter()
        batch = jax.tree.map(lambda x: x[None], next(coming))
        running, metrics = ready.call.call(running, batch, ready.given)
        jax.device_get(metrics["loss"])
        yield time.perf_counter() - start


def stored(folder: pathlib.Path) -> int:
    """Bytes of the files of a store."""
    return sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())


def measure(
    run: Run, repeats: int, folder: pathlib.Path
) -> tuple[dict[str, list[float]], float]:
    """Seconds of the turns of each step, and bytes on disk of a stored view."""
    data, teacher_config = splits(), run.teacher
    assert isinstance(teacher_config, TrainFirst)
    model = kdjax.make_model(teacher_config.model, CLASSES)
    image = np.zeros((1, 32, 32, 3), np.float32)
    variables = model.init(jax.random.key(SEED), image)
    cached = dataclasses.replace(
        run,
        teacher=replace_cache(teacher_config, Cache(path=str(folder / "store"))),
    )
    kdjax.cache_targets(cached, splits=data, teacher=(model, variables))
    train = setup.load_source(run, "train", data)
    teacher = BoundModel(model, variables, None, 32)
    plain = dataclasses.replace(run, terms=HARD)
    steps = {
        "none": stepper(plain, train, None),
        "cached": stepper(cached, train, teacher),
        "live": stepper(run, train, teacher),
    }
    for step in steps.values():
        # The first compiles, the second finds warm caches.
        for _ in range(WARM):
            next(step)
    turns = {name: [] for name in steps}
    for turn in range(repeats):
        names = list(steps)[:: 1 if turn % 2 else -1]
        for name in names:
            turns[name].append(next(steps[name]))
    return turns, stored(folder / "store") / (run.steps * run.batch)


def table(turns: dict[str, list[float]]) -> str:
    """A row for each teacher; a ratio is the median of the ratios of the turns."""
    most = {"none": "", "cached": "1.05", "live": ""}
    head = "| teacher | ms a step | beside no teacher | at most | |"
    lines = [head, "|---" * 5 + "|"]
    for name, times in turns.items():
        pairs = zip(times, turns["none"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        met = (
            ("met" if round(ratio, 2) <= float(most[name]) else "not met")
            if most[name]
            else ""
        )
        numbers = f"{1e3 * statistics.median(times):.1f} | {ratio:.2f}"
        lines.append(f"| {name} | {numbers} | {most[name]} | {met} |")
    return "\n".join(lines)


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
    repeats, batch = options.repeats, options.batch
    run = base(options.student, options.teacher, repeats + WARM, batch)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = dataclasses.replace(run, workdir=str(folder / "run"))
        turns, a_view = measure(run, repeats, folder)
    command = (
        f"python experiments/benchmarks/teachers.py --student {options.student} "
        f"--teacher {options.teacher} --batch {batch} --repeats {repeats}"
    )
    size = {k: bytes_per_view(1000, k) for k in (0, 10)}
    about = (
        f"- {options.student} under {options.teacher}, 32 x 32, {CLASSES} classes, "
        f"batch {batch}, {repeats} turns; seed {run.seed}, the teacher's {SEED}"
    )
    disk = (
        f"On disk a view took {a_view:.1f} bytes here, {4 * CLASSES} of them logits. "
        f"Of 1 000 classes it takes {size[0]:,} bytes with all, {size[10]} with 10 "
        "(4 + 4 K), marks and headers aside."
    )
    parts = [circumstances(command) + f"\n{about}", table(turns), disk]
    text = f"{INTRODUCTION}\n" + "\n\n".join(parts) + "\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
