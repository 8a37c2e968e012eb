"""Random flips of one bit in checkpoints and target caches.

    python -m experiments.faults.flips --count 1000 --out experiments/faults/flips.md

A small student is trained with a cached teacher. Then each trial flips one bit of one
file, and reads the run as a resumed run would, or the cache as a training would. It is
*detected* (a warning or an error that names the place), *harmless* (what is read is
the same to the last bit), or *silent* (what is read differs, without a word).
"""

import argparse
import collections
import dataclasses
import pathlib
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable

import jax
import numpy as np

import kdjax
from experiments.faults import page
from kdjax import presets, setup
from kdjax.cache.store import StoreError, open_store
from kdjax.config import Cache, FromRun, Run, labels_only
from kdjax.core.types import PyTree
from kdjax.train import sharding
from kdjax.train.checkpoint import CheckpointError, Checkpoints

HEADS = (
    "| of | file | detected | harmless | silent |",
    "| --- | --- | ---: | ---: | ---: |",
)
OUTCOMES = ("detected", "harmless", "silent")


def small_runs(folder: pathlib.Path) -> tuple[Run, Run]:
    """A teacher, and some steps of a student with a cache of its targets."""
    optim = dataclasses.replace(presets.digits().optim, warmup=2)
    every = {"evaluate_every": 8, "checkpoint_every": 8, "baselines": ()}
    base = presets.digits(optim=optim, seeds=1, steps=24, **every)
    teacher = labels_only(base, workdir=str(folder / "teacher"), teacher=None)
    cache = Cache(path=str(folder / "store"))
    source = FromRun(str(folder / "teacher"), cache=cache)
    student = dataclasses.replace(base, workdir=str(folder / "run"), teacher=source)
    return teacher, student


def like_of(run: Run) -> PyTree:
    """The shapes of a run's state."""
    mesh = sharding.make_mesh(run.compute, run.batch)
    train = setup.load_source(run, "train")
    teacher = setup.load_teacher(run, train, mesh)
    parts = setup.make_parts(run, train=train, teacher=teacher, mesh=mesh)
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)
    init = parts.make_state, mesh, seeds, parts.start
    return sharding.abstract_sharded(*init)


def read_run(folder: pathlib.Path, like: PyTree) -> tuple[PyTree, int | None]:
    """The state that a resumed run begins from, and the step of its best checkpoint."""
    checkpoints = Checkpoints(folder)
    state = checkpoints.restore_whole(like)
    best = checkpoints.best_step()
    checkpoints.close()
    return jax.device_get(state), best


def read_store(folder: pathlib.Path) -> PyTree:
    """All records of a cache."""
    store = open_store(folder)
    return store.read(slice(0, store.records))


def flip(file: pathlib.Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))


def judge(read: Callable[[], PyTree], whole: PyTree) -> str:
    """The outcome of reading what may be damaged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read()
        except (CheckpointError, StoreError):
            return "detected"
    if any(x.category is UserWarning for x in caught):
        return "detected"
    return "harmless" if _same(found, whole) else "silent"


def _same(found: PyTree, whole: PyTree) -> bool:
    if jax.tree.structure(found) != jax.tree.structure(whole):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True)
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        and np.asarray(x).dtype == np.asarray(y).dtype
        for x, y in pairs
    )


def trials(
    source: pathlib.Path,
    files: str,
    read: Callable[[pathlib.Path], PyTree],
    count: int,
    draw: random.Random,
) -> collections.Counter:
    """Outcomes by kind of file. files: a pattern below the folder."""
    whole = read(source)
    outcomes: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for trial in range(count):
            copy = pathlib.Path(scratch) / str(trial)
            shutil.copytree(source, copy)
            found = sorted(x for x in copy.glob(files) if x.is_file())
            found = [x for x in found if x.stat().st_size]
            # Half of the trials choose a byte, the others a file.
            sizes = [x.stat().st_size for x in found]
            (file,) = draw.choices(found, weights=sizes if trial % 2 else None)
            flip(file, draw)
            outcomes[_kind(file), judge(lambda at=copy: read(at), whole)] += 1
            shutil.rmtree(copy)
    return outcomes


def _kind(file: pathlib.Path) -> str:
    """Chunks of all arrays are one kind of file."""
    return "chunk" if file.parent.name.isdigit() or file.name.isdigit() else file.name


def table(of: str, outcomes: collections.Counter) -> list[str]:
    """Rows of a Markdown table, a kind of file each, and one of all."""
    kinds = sorted({kind for kind, _ in outcomes})
    rows = []
    for kind in kinds:
        counts = [outcomes[kind, outcome] for outcome in OUTCOMES]
        rows.append(f"| {of} | {kind} | {' | '.join(map(str, counts))} |")
    sums = [sum(outcomes[kind, x] for kind in kinds) for x in OUTCOMES]
    return [*rows, f"| {of} | all | {' | '.join(map(str, sums))} |"]


def main() -> None:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        teacher, run = small_runs(folder)
        kdjax.jobs.train(teacher)
        kdjax.cache_targets(run)
        kdjax.distill(run)
        like, half = like_of(run), args.count // 2
        runs = trials(
            *(folder / "run", "checkpoints/**/*"),
            *(lambda at: read_run(at, like), half, draw),
        )
        stores = trials(folder / "store", "**/*", read_store, args.count - half, draw)
    rows = [*table("checkpoints", runs), *table("target cache", stores)]
    print(*HEADS, *rows, sep="\n")
    if args.out:
        page.add_rows(args.out, "Flips of one bit", text, HEADS, rows)


if __name__ == "__main__":
    main()
