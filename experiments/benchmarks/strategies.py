"""What a step of several methods costs, as ratios to others of the same run.

    PYTHONPATH=. python experiments/benchmarks/strategies.py [--out FILE] [--repeats N]

One student and teacher for all, at 32 x 32, as compiled steps that take turns, so that
whatever else the machine does weighs on all; a ratio is the median of the ratios of the
turns. A step begins with its batch and ends with its loss on the host. Images and
weights are random numbers: the cost does not depend on them. The tables are written to
FILE; `--student`, `--teacher`, `--batch` and `--only METHOD ...` change what is
measured.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import kdjax
from experiments.benchmarks.common import HARD, base, circumstances, splits
from experiments.benchmarks.teachers import CLASSES, SEED, WARM, stepper
from kdjax import setup
from kdjax.config import Custom, Network, Run, Scalar, Term, TrainFirst, labels_only
from kdjax.core.types import BoundModel

# Seconds by the clock and of CPU time of the turns of each step, `[turns, 2]`.
Turns = dict[str, np.ndarray]

INTRODUCTION = """# What a step of several methods costs

Steps of the same student, batch and views, and of the same teacher where there is one,
that take turns in one run. A ratio is the median over the turns, so it is not quite the
quotient of the two medians. Ratios by the clock stand before those of the CPU time of
all threads, to which other processes add less. See `strategies.py` for what a step is.
"""

METHODS = ("crd", "vid", "review_kd")
COUNTS = (2, 4)


class Bound(NamedTuple):
    """A requirement on a ratio: a row, its divisor, and the largest value."""

    name: str
    over: str
    most: float
    base: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def format(self, turns: Turns) -> str:
        whole = self.base(turns["labels"], turns["hinton"])
        clock, cpu = np.median(turns[self.name] / whole, axis=0)
        by_clock, of_cpu = (round(float(x), 2) <= self.most for x in (clock, cpu))
        met = {
            (True, True): "met",
            (False, True): "met in CPU time, not by the clock",
            (True, False): "met by the clock, not in CPU time",
            (False, False): "not met",
        }[by_clock, of_cpu]
        numbers = f"{clock:.2f} | {cpu:.2f} | {self.most:.2f}"
        return f"| {self.name} | {self.over} | {numbers} | {met} |"


def methods(run: Run) -> dict[str, Run]:
    """The run of each row by name."""

    def custom(name: str, count: int = 1, **options: Any) -> Run:
        others = {f"other{i}": Network(run.model) for i in range(1, count)}
        strategy = Custom(name, options=options)
        return dataclasses.replace(run, strategy=strategy, networks=others)

    soft = Term("softmax_kl", weight=Scalar(0.9), temperature=Scalar(4.0))
    hard = dataclasses.replace(HARD["hard"], weight=Scalar(0.1))
    alone = labels_only(run, teacher=None)
    mutual = Custom("mutual", options={"peers": 2})
    return {
        "labels": alone,
        "hinton": dataclasses.replace(run, terms={"soft": soft, "hard": hard}),
        **{name: custom(name) for name in METHODS},
        "mutual 2": dataclasses.replace(alone, strategy=mutual),
        **{f"students {n}": custom("many_students", n) for n in COUNTS},
    }


def bounds(names: Collection[str]) -> list[Bound]:
    """The requirements on the rows that are measured."""

    def students(count: int) -> Bound:
        over = f"T + {count} S, where S = labels and T = hinton - labels"
        name = f"students {count}"
        return Bound(name, over, 1.0, lambda s, hinton: hinton + (count - 1) * s)

    found = (
        Bound("crd", "hinton", 1.5, lambda s, hinton: hinton),
        Bound("mutual 2", "labels", 2.1, lambda s, hinton: s),
        *map(students, COUNTS),
    )
    return [bound for bound in found if bound.name in names]


def measure(runs: Mapping[str, Run], repeats: int) -> Turns:
    """Seconds of the turns of each step."""
    data, config = splits(), runs["hinton"].teacher
    assert isinstance(config, TrainFirst)
    size, model = config.model.resolution, kdjax.make_model(config.model, CLASSES)
    image = np.zeros((1, size, size, 3), np.float32)
    teacher = BoundModel(model, model.init(jax.random.key(SEED), image), None, size)
    steps: dict[str, Iterator[float]] = {}
    for name, run in runs.items():
        train = setup.load_source(run, "train", data)
        steps[name] = stepper(run, train, teacher if run.teacher else None)
        # The first compiles, the second finds warm caches.
        for _ in range(WARM):
            next(steps[name])
    turns: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for turn in range(repeats):
        names = list(steps)[:: 1 if turn % 2 else -1]
        for name in names:
            start = time.process_time()
            wall = next(steps[name])
            turns[name].append(np.array([wall, time.process_time() - start]))
    return {name: np.stack(times) for name, times in turns.items()}


def tables(turns: Turns) -> str:
    """A row for each step beside labels and Hinton's loss, then the requirements."""
    lines = ["| step | ms | beside labels | | beside hinton | |", "|---" * 6 + "|"]
    for name, times in turns.items():
        pairs = [np.median(times / turns[x], axis=0) for x in ("labels", "hinton")]
        ratios = " | ".join(f"{ratio:.2f}" for pair in pairs for ratio in pair)
        lines.append(f"| {name} | {1e3 * np.median(times[:, 0]):.1f} | {ratios} |")
    head = "| step | beside | ratio | of CPU time | at most | |"
    lines += ["", head, "|---" * 6 + "|"]
    return "\n".join([*lines, *(bound.format(turns) for bound in bounds(turns))])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/benchmark-strategies.md"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=())
    options = parser.parse_args()
    repeats, batch = options.repeats, options.batch
    run = base(options.student, options.teacher, repeats + WARM, batch)
    # CRD reads the labels of single images.
    views = dataclasses.replace(run.views, mode="consistent")
    runs = methods(dataclasses.replace(run, views=views))
    chosen = {"labels", "hinton", *(options.only or runs)}
    runs = {name: run for name, run in runs.items() if name in chosen}
    turns = measure(runs, repeats)
    command = (
        f"python experiments/benchmarks/strategies.py --student {options.student} "
        f"--teacher {options.teacher} --batch {batch} --repeats {repeats}"
    )
    if options.only:
        command += f" --only {' '.join(options.only)}"
    about = (
        f"- {options.student} under {options.teacher}, 32 x 32, {CLASSES} classes, "
        f"batch {batch}, {repeats} turns; seed {run.seed}, the teacher's {SEED}"
    )
    text = f"{INTRODUCTION}\n{circumstances(command)}\n{about}\n\n{tables(turns)}\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
