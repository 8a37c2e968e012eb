"""Random kills of a job: the same command then ends as an undisturbed one.

    python -m experiments.faults.kills --kind distill --count 100

Each trial starts the command, kills it with SIGKILL at a random time, and repeats until
it ends by itself or has been killed often enough. In the end every file of results is
compared with that of an undisturbed run: the digests of all arrays of the last
checkpoint, which one bit changes, the validation metrics, and the summary's results.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from kdjax.core import runlog
from kdjax.train.checkpoint import Checkpoints
from kdjax.train.restore import read_record

# Short steps of everything; checkpoints are frequent, so that kills find them.
SHORT = (
    *("--seeds", "1", "--steps", "60", "--log-every", "5", "--evaluate-every", "15"),
    *("--checkpoint-every", "5", "--optim.warmup", "5"),
)
TEACHER = ("--teacher.steps", "30", "--teacher.optim.warmup", "5")
KINDS = {
    "train": ("train", *SHORT),
    "distill": ("distill", *SHORT, *TEACHER, "--baselines", "labels"),
}


def command(kind: str, folder: pathlib.Path) -> list[str]:
    words = [sys.executable, "-m", "kdjax", *KINDS[kind]]
    return [*words, "--workdir", str(folder / "run")]


def start(words: Sequence[str]) -> subprocess.Popen:
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, start_new_session=True, **quiet)


def finish_timed(words: Sequence[str]) -> float:
    """Run a command to its end; the seconds. RuntimeError where it fails."""
    begun = time.monotonic()
    process = start(words)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {output[-2000:]}")
    return time.monotonic() - begun


def kill_at_random(words: Sequence[str], longest: float, draw: random.Random) -> bool:
    """Start a command and kill it within a time; False where it ended before."""
    process = start(words)
    try:
        process.communicate(timeout=draw.uniform(0.0, longest))
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}")
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def kill_again_and_again(
    words: Sequence[str], longest: float, most: int, draw: random.Random
) -> int:
    """Kill a command at most so often, and let it end at last; the number of kills."""
    for kills in range(most):
        if not kill_at_random(words, longest, draw):
            return kills
    finish_timed(words)
    return most


def undisturbed(kind: str, folder: pathlib.Path) -> tuple[dict[str, Any], float]:
    """The results of a job, and the seconds that it takes with compiled programs."""
    for name in ("first", "whole"):
        seconds = finish_timed(command(kind, folder / name))
    # Later kills would come after the end.
    return results(folder / "whole"), 0.8 * seconds


def results(folder: pathlib.Path) -> dict[str, Any]:
    """All numbers of the runs in a folder, by name."""
    found: dict[str, Any] = {}
    for config in sorted(folder.glob("**/config.json")):
        at, run = config.parent.relative_to(folder).as_posix(), config.parent
        record = read_record(run / "checkpoints" / str(Checkpoints(run).last_step()))
        arrays = record["arrays"] if record else {}
        found |= {f"{at}/{name}": x["digest"] for name, x in arrays.items()}
        # The first line after a restart is the mean since the restart.
        for line in runlog.read_metrics(run):
            if line["kind"] == "validation":
                numbers = {k: v for k, v in line.items() if k != "seconds"}
                found[f"{at}/validation {line['step']}"] = json.dumps(numbers)
        summary = runlog.read_summary(run)
        found[f"{at}/summary"] = json.dumps(summary and summary["test"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Random kills of a job.")
    parser.add_argument("--kind", choices=KINDS, default="distill")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--most", type=int, default=5, help="kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    draw, kills, runs, differing = random.Random(args.seed), 0, 0, []
    with tempfile.TemporaryDirectory() as scratch:
        expected, longest = undisturbed(args.kind, pathlib.Path(scratch))
        while kills < args.count:
            folder = pathlib.Path(scratch) / "killed"
            words = command(args.kind, folder)
            most = min(args.most, args.count - kills)
            kills += kill_again_and_again(words, longest, most, draw)
            runs += 1
            found = results(folder)
            differing += [k for k in expected if found.get(k) != expected[k]]
            print(f"{kills} kills, {runs} runs, {len(differing)} differ", flush=True)
            shutil.rmtree(folder)
    row = f"| {args.kind} | {kills} | {runs} | {len(expected)} | {len(differing)} |"
    print(row, *differing[:5], sep="\n")
    if args.out:
        with open(args.out / "kills.md", "a") as file:
            file.write(row + "\n")


if __name__ == "__main__":
    main()
