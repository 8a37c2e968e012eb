"""Random kills of a command: started again, it ends as one that nobody disturbed.

    python -m experiments.faults.kills --kinds train --count 250 --out kills.md
    python -m experiments.faults.kills --kinds distill stages --count 200 --out kills.md
    python -m experiments.faults.kills --kinds cache-targets --count 150 --out kills.md
    python -m experiments.faults.kills --kinds sweep --count 120 --out kills.md
    python -m experiments.faults.kills --kinds "two processes" --count 80 --out kills.md

Each trial starts a command, kills it with SIGKILL at a random time, and repeats until
it ends by itself or has been killed often enough. Of two processes, either is killed.
In the end all results are compared with those of an undisturbed run: the digests of
all arrays of the last checkpoint, which one bit changes; every logged metric but times;
the summary's results; the files of a target cache.

A step is acknowledged once a checkpoint of it is on disk: the next start must begin
from it.

Processes are forked from one that has imported the libraries, which saves their time.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any

from experiments.faults import page
from kdjax.core import runlog, timeline
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.restore import read_record

# Many checkpoints, each on a step of the log.
SHORT = (
    *("--seeds", "1", "--steps", "60", "--log-every", "5", "--evaluate-every", "15"),
    *("--checkpoint-every", "5", "--optim.warmup", "5"),
)
TEACHER = ("--teacher.steps", "30", "--teacher.optim.warmup", "5")
SEVERAL = "--compute.several-processes", "True", "--compute.lost-after", "5"
STAGES = "experiments/faults/short.py"
# Commands by name, up to the folder, and the number of processes.
KINDS = {
    "train": (("train", *SHORT), 1),
    "distill": (("distill", *SHORT, *TEACHER, "--baselines", "labels"), 1),
    "stages": (("distill", "--config", f"{STAGES}:stages"), 1),
    "cache-targets": (("cache-targets", *SHORT, "--steps", "12000"), 1),
    "sweep": (("sweep", STAGES, "--scale", "tiny", "--seeds", "1"), 1),
    "two processes": (("train", *SHORT, *SEVERAL), 2),
}
HEADS = (
    "| command | kills | runs | steps acknowledged | lost | compared | differ |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)

_fork = multiprocessing.get_context("forkserver")


def command(kind: str, folder: pathlib.Path) -> list[str]:
    words, _ = KINDS[kind]
    if kind == "cache-targets":
        # `undisturbed` trains it.
        words = *words, "--teacher.run", str(folder.parent / "teacher" / "run")
        words = *words, "--teacher.cache.path", str(folder / "store")
    return [*words, "--workdir", str(folder / "run")]


def start(kind: str, folder: pathlib.Path) -> list[ForkServerProcess]:
    """Start a command in all its processes; what they print is in FOLDER.txt."""
    _fork.set_forkserver_preload(["kdjax.cli.main", "kdjax.jobs", "kdjax.experiments"])
    count = KINDS[kind][1]
    environments: list[dict[str, str]] = [{}]
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        at = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
        at["JAX_NUM_PROCESSES"] = str(count)
        environments = [{**at, "JAX_PROCESS_ID": str(i)} for i in range(count)]
    running = []
    for environment in environments:
        args = command(kind, folder), environment, folder.with_suffix(".txt")
        running.append(_fork.Process(target=_work, args=args))
        running[-1].start()
    return running


def _work(words: list[str], environment: Mapping[str, str], output: str) -> None:
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from kdjax.cli.main import main as kdjax

    timeline.begin_process()
    sys.argv = ["kdjax", *words]
    kdjax()


def finish(kind: str, folder: pathlib.Path) -> float:
    """Run a command to its end; the seconds. RuntimeError where it fails."""
    begun = time.monotonic()
    _wait(start(kind, folder), folder)
    return time.monotonic() - begun


def _wait(running: Sequence[ForkServerProcess], folder: pathlib.Path) -> None:
    for process in running:
        process.join()
    if codes := [process.exitcode for process in running if process.exitcode]:
        text = folder.with_suffix(".txt").read_text()[-2000:]
        raise RuntimeError(f"exit status {codes[0]}: {text}")


def kill_at_random(
    kind: str, folder: pathlib.Path, longest: float, draw: random.Random
) -> bool:
    """Start a command and kill it within a time; False where it ended before."""
    running = start(kind, folder)
    deadline = time.monotonic() + draw.uniform(0.0, longest)
    one = draw.choice(running)
    one.join(max(deadline - time.monotonic(), 0.0))
    if one.exitcode is not None:
        _wait(running, folder)
        return False
    one.kill()
    for process in running:
        # The others end by themselves; before all have met, only after five minutes.
        process.join(30)
        process.kill()
        process.join()
    return True


@dataclasses.dataclass
class Tally:
    """The effects of kills so far.

    acknowledged: steps that were saved when a kill came, over all kills.
    lost: those of them that the next start did not begin from.
    """

    kills: int = 0
    runs: int = 0
    acknowledged: int = 0
    lost: int = 0
    compared: int = 0
    differ: list[str] = dataclasses.field(default_factory=list)

    def row(self, kind: str) -> str:
        counts = self.kills, self.runs, self.acknowledged, self.lost
        return f"| {kind} | " + " | ".join(
            map(str, (*counts, self.compared, f"{len(self.differ)} |"))
        )


def run_through_kills(
    kind: str,
    folder: pathlib.Path,
    longest: float,
    most: int,
    draw: random.Random,
    tally: Tally,
) -> float:
    """Kill a command at most so often, and let it end at last.

    Returns the seconds within which kills find it: fewer, where it ended before the
    first one.
    """
    tally.runs += 1
    begun = time.monotonic()
    for left in range(most, -1, -1):
        saved = saved_steps(folder)
        killed = False
        if left:
            killed = kill_at_random(kind, folder, longest, draw)
        else:
            finish(kind, folder)
        tally.acknowledged += sum(step for step, _ in saved.values())
        tally.lost += lost_steps(folder, saved)
        tally.kills += killed
        if not killed:
            ended_first = left == most
            return time.monotonic() - begun if ended_first else longest
    return longest


def saved_steps(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """The step of the last checkpoint of every run, and how often it was started."""
    found = {}
    for config in sorted(folder.glob("**/config.json")):
        run = config.parent
        step = Checkpoints(run).last_step()
        at = run.relative_to(folder).as_posix()
        found[at] = step or 0, len(start_steps(run))
    return found


def lost_steps(folder: pathlib.Path, saved: Mapping[str, tuple[int, int]]) -> int:
    """Saved steps that later starts did not begin from."""
    return sum(
        max(step - begun, 0)
        for run, (step, starts) in saved.items()
        for begun in start_steps(folder / run)[starts:]
    )


def start_steps(run: pathlib.Path) -> list[int]:
    """The step from which each start of a run began."""
    steps = []
    with contextlib.suppress(FileNotFoundError):
        for line in (run / timeline.FILE).read_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                steps += [event["step"]] if event["event"] == "start" else []
    return steps


def undisturbed(kind: str, folder: pathlib.Path) -> tuple[dict[str, Any], float]:
    """The results of a command, and the seconds that it takes with compiled programs.

    A kill after its end would be none, so that the time is cut a little.
    """
    if kind == "cache-targets":
        finish("train", folder / "teacher")
    seconds = [finish(kind, folder / name) for name in ("first", "whole")]
    return results(folder / "whole"), 0.9 * seconds[-1]


def results(folder: pathlib.Path) -> dict[str, Any]:
    """All results of the runs and caches in a folder, by name."""
    found: dict[str, Any] = {}
    for config in sorted(folder.glob("**/config.json")):
        at, run = config.parent.relative_to(folder).as_posix(), config.parent
        record = read_record(run / "checkpoints" / str(Checkpoints(run).last_step()))
        arrays = record["arrays"] if record else {}
        found |= {f"{at}/{name}": x["digest"] for name, x in arrays.items()}
        for line in runlog.read_metrics(run):
            times = "seconds", "images_per_second"
            numbers = {k: v for k, v in line.items() if k not in times}
            found[f"{at}/{line['kind']} {line['step']}"] = json.dumps(numbers)
        summary = runlog.read_summary(run)
        found[f"{at}/summary"] = json.dumps(summary and summary["test"])
    for file in sorted((folder / "store").glob("**/*")):
        # The manifest has the folder of its own run.
        if file.is_file() and file.name != "manifest.json":
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            found[file.relative_to(folder).as_posix()] = digest
    return found


def tally_kills(
    kind: str, count: int, most: int, draw: random.Random, scratch: pathlib.Path
) -> Tally:
    """Kill a command so often in all, each run at most `most` times."""
    tally = Tally()
    expected, longest = undisturbed(kind, scratch)
    while tally.kills < count:
        folder = scratch / "killed"
        times = min(most, count - tally.kills)
        longest = run_through_kills(kind, folder, longest, times, draw, tally)
        found = results(folder)
        names = expected.keys() | found.keys()
        tally.compared += len(names)
        tally.differ += [k for k in names if found.get(k) != expected.get(k)]
        print(kind, dataclasses.replace(tally, differ=tally.differ[:5]), flush=True)
        shutil.rmtree(folder)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description="Random kills of a command.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--count", type=int, default=30, help="kills of each command")
    parser.add_argument("--most", type=int, default=8, help="kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="a page; rows are appended")
    args = parser.parse_args()
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            draw = random.Random(f"{args.seed} {kind}")
            options = args.count, args.most, draw, pathlib.Path(scratch)
            row = tally_kills(kind, *options).row(kind)
        print(*HEADS, row, sep="\n")
        if args.out:
            page.add_rows(args.out, "Random kills", __doc__ or "", HEADS, [row])


if __name__ == "__main__":
    main()
