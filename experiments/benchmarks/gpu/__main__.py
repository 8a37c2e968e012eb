"""Order, limits and report of the parts of the GPU script. Needs no JAX itself.

Each part is a process of its own with a time limit. The report and its copy are made
again whenever a part has written, so a stop at any second loses one row at most.
"""

import argparse
import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from typing import Any, TextIO

from experiments.benchmarks.gpu.machine import (
    ROOT,
    Trials,
    fail,
    for_child,
    heading,
    missing,
)
from experiments.benchmarks.gpu.machine import probe as find_device
from experiments.benchmarks.gpu.tables import LATE, one_line, write

# Seconds a part may take. Their sum leaves 20 s of 8 minutes for the start.
LIMITS = {"laws": 95, "cifar": 150, "bit": 130, "kernels": 35, "profile": 50}
DEADLINE = 8 * 60.0
# Seconds before its limit from which a part starts no row.
MARGIN = 3
# Seconds of the deadline that are kept for the last report, and the least of a part.
LAST, LEAST = 3, 10


class Stopped(Exception):
    """A signal asked the script to end."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Options, checked; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(prog="gpu.sh")
    parser.add_argument("out", nargs="?", type=pathlib.Path, default="runs/gpu")
    parser.add_argument("--parts", default=",".join(LIMITS))
    parser.add_argument("--dry", action="store_true", help="toy sizes on CPU")
    parser.add_argument("--cifar", type=pathlib.Path, help="images and labels (.npz)")
    parser.add_argument("--copy", type=pathlib.Path, help="gpu.md and gpu.tar.gz too")
    parser.add_argument("--commit", default="", help="of a checkout without .git")
    parser.add_argument("--limit", action="append", default=[], help="PART=SECONDS")
    parser.add_argument("--deadline", type=float, help="seconds of the whole run")
    options = parser.parse_args(given)
    try:
        check(options)
    except ValueError as error:
        fail(str(error))
    return options


def check(options: argparse.Namespace) -> None:
    """Raise ValueError, with one line, for the first wrong option."""
    wanted = [name for name in options.parts.split(",") if name]
    unknown = [name for name in wanted if name not in LIMITS]
    known = ", ".join(LIMITS)
    if unknown or not wanted:
        got = ", ".join(unknown) or "none"
        raise ValueError(f"--parts: expected some of {known}; got {got}")
    options.parts = [name for name in LIMITS if name in wanted]
    # A dry run is a test of the script; its machine may be slow and busy.
    factor = 4.0 if options.dry else 1.0
    options.limits = {name: factor * seconds for name, seconds in LIMITS.items()}
    for text in options.limit:
        name, _, seconds = text.partition("=")
        if name not in LIMITS or not seconds.replace(".", "", 1).isdigit():
            raise ValueError(f"--limit: expected PART=SECONDS, got {text}")
        options.limits[name] = float(seconds)
    if options.deadline is None:
        options.deadline = math.inf if options.dry else DEADLINE
    if not options.deadline > 0:
        raise ValueError(f"--deadline: expected seconds, got {options.deadline:g}")
    if options.cifar is not None:
        check_arrays(options.cifar)


def check_arrays(path: pathlib.Path) -> None:
    """Raise ValueError unless a file holds CIFAR's images and labels."""
    want = "--cifar: expected a .npz of images uint8 [n, 32, 32, 3] and labels [n]"
    if not path.is_file():
        raise ValueError(f"{want}; no file {path}")
    try:
        import numpy as np

        with np.load(path) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    # Every kind: a broken file fails in NumPy, zipfile, zlib or pickle.
    except Exception as error:
        raise ValueError(f"{want}; {path}: {one_line(error)}") from None
    good = images.shape[1:] == (32, 32, 3) and labels.shape == images.shape[:1]
    if not good or images.dtype != np.uint8 or len(images) < 512:
        got = f"{images.dtype} {images.shape} and {labels.shape}"
        raise ValueError(f"{want}, n >= 512; got {got}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{want}, labels integers; got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= 10:
        got = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"{want}, labels in [0, 10); got {got}")


def check_folder(name: str, folder: pathlib.Path) -> None:
    """Make a folder and write into it; status 2 where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
            file.write(bytes(4096))
    except OSError as error:
        fail(f"{name}: expected a folder to write into; {folder}: {error.strerror}")


def lock(folder: pathlib.Path) -> TextIO:
    """Hold a folder for as long as the file is open; status 2 where another does."""
    file = open(folder / ".lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        fail(f"OUT: another run writes into {folder}")
    except OSError:
        # A file system without locks is no reason to lose the GPU's time.
        pass
    return file


def environment(dry: bool, cache: str) -> dict[str, str]:
    """Variables of the parts."""
    values = dict(os.environ)
    values["PYTHONSAFEPATH"] = "1"
    values["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [values.get("PYTHONPATH")])]
    )
    values["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    # JAX refuses both names at once; the second is the old one.
    if not values.get("XLA_PYTHON_CLIENT_MEM_FRACTION"):
        values.setdefault("XLA_CLIENT_MEM_FRACTION", "0.9")
    # Fresh caches: with a filled one the seconds of a compilation mean nothing.
    values["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    values["JAX_COMPILATION_CACHE_DIR"] = cache
    values["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
    values["TRITON_CACHE_DIR"] = f"{cache}/triton"
    values["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    values["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if dry:
        values.update(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1")
        values["CUDA_VISIBLE_DEVICES"] = ""
        return values
    # One GPU, and the CPU beside it to compare with.
    values.pop("JAX_PLATFORMS", None)
    visible = values.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    values["CUDA_VISIBLE_DEVICES"] = visible[0].strip()
    # The numbers of nvidia-smi, which names the GPU in the report.
    values.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return values


def say(text: str, file: TextIO | None = None) -> bool:
    """Print a text; False where the output is closed or its disk is full."""
    try:
        print(text, file=file, flush=True)
        return True
    except OSError:
        if file is None:
            # Otherwise the interpreter writes to it again when it ends.
            sys.stdout = open(os.devnull, "w")
        return False


def compose(options: argparse.Namespace, head: str, states: dict[str, str]) -> str:
    """The report over all parts, from their files."""
    folder, texts = options.out / "parts", [head]
    texts.append("".join(f"- {name}: {state}\n" for name, state in states.items()))
    for name in options.parts:
        file = folder / f"{name}.md"
        texts.append(file.read_text() if file.exists() else f"## {name}\n\nNo rows.\n")
    return "\n".join(texts)


def report(options: argparse.Namespace, text: str) -> None:
    """Write gpu.md anew, and the copy with the files of the parts."""
    write(options.out / "gpu.md", text)
    if options.copy is None:
        return
    options.copy.mkdir(parents=True, exist_ok=True)
    write(options.copy / "gpu.md", text)
    archive = options.copy / ".gpu.tar.gz"
    try:
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for file in sorted((options.out / "parts").glob("[!.]*")):
                tar.add(file, f"parts/{file.name}")
        archive.replace(options.copy / "gpu.tar.gz")
    finally:
        archive.unlink(missing_ok=True)


def stamp(folder: pathlib.Path, name: str) -> float:
    """The time of the last change of a part's rows."""
    file = folder / f"{name}.md"
    return file.stat().st_mtime if file.exists() else 0.0


def stop(process: subprocess.Popen) -> None:
    """End a part and everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run_part(
    name: str,
    options: argparse.Namespace,
    env: dict[str, str],
    refresh: Callable[[], None],
    limit: float,
) -> str:
    """Run one part to its end or limit; its state in one phrase."""
    folder = options.out / "parts"
    command = [sys.executable, "-m", "experiments.benchmarks.gpu.part", name]
    command += [str(folder.resolve()), "--seconds", str(max(limit - MARGIN, 0.1))]
    command += ["--dry"] if options.dry else []
    command += ["--cifar", str(options.cifar.resolve())] if options.cifar else []
    start, last = time.monotonic(), 0.0
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            command, env=for_child(env), stdout=log, stderr=log, process_group=0
        )
        try:
            while process.poll() is None:
                if time.monotonic() - start > limit:
                    return f"stopped at its limit of {round(limit, 1):g} s"
                if stamp(folder, name) != last:
                    last = stamp(folder, name)
                    refresh()
                time.sleep(0.2)
        finally:
            # Also what a finished part may have left behind.
            stop(process)
    seconds = f"{time.monotonic() - start:.1f} s"
    code = process.returncode
    return f"done in {seconds}" if code == 0 else f"failed, status {code}, {seconds}"


def counts(options: argparse.Namespace, name: str) -> str:
    """How many rows a part measured, and how many it did not."""
    file = options.out / "parts" / f"{name}.json"
    if not file.exists():
        return "no rows"
    rows = json.loads(file.read_text())["rows"]
    done = sum(not row["state"] for row in rows)
    errors = sum(row["state"].startswith("error") for row in rows)
    text = f"{done} of {len(rows)} rows measured"
    return text + (f", {errors} with an error" if errors else "")


def set_aside(out: pathlib.Path) -> None:
    """Move the files of an earlier run into OUT/earlier-N."""
    old = [file for file in (out / "parts", out / "gpu.md") if file.exists()]
    if old:
        number = 1
        while (out / f"earlier-{number}").exists():
            number += 1
        folder = out / f"earlier-{number}"
        folder.mkdir()
        for file in old:
            file.rename(folder / file.name)
    (out / "parts").mkdir()


def watch_signals() -> None:
    """Raise Stopped at the first signal; the cleaning up after it is not disturbed."""
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        # nohup has SIGHUP ignored.
        if signal.getsignal(number) != signal.SIG_IGN
    ]

    def stopped(number: int, _frame: Any) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(f"stopped by {signal.Signals(number).name}")

    for number in numbers:
        signal.signal(number, stopped)


def main() -> int:
    """Run the parts; 0 where all ended by themselves, 1 where not, 2 before any."""
    end = time.monotonic()
    cache, trials, started = "", None, False
    try:
        watch_signals()
        options = arguments()
        end += options.deadline
        check_folder("OUT", options.out)
        if options.copy is not None:
            check_folder("--copy", options.copy)
        with lock(options.out):
            gaps = missing()
            for line in gaps:
                say(line)
            cache = tempfile.mkdtemp(prefix="gpu-cache-")
            env = environment(options.dry, cache)
            trials = Trials(env)
            device = find_device(options, env)
            gaps += trials.lines()
            head = heading(options, device, gaps, env)
            set_aside(options.out)
            started = True
            read = say(head)
            return run_parts(options, env, head, end) or int(not read)
    except Stopped as reason:
        say(f"gpu.sh: {reason}", sys.stderr)
        return 1 if started else 2
    except OSError as error:
        say(f"gpu.sh: {one_line(error)}", sys.stderr)
        return 1 if started else 2
    finally:
        if trials is not None:
            trials.end()
        if cache:
            shutil.rmtree(cache, ignore_errors=True)


def run_parts(
    options: argparse.Namespace, env: dict[str, str], head: str, end: float
) -> int:
    """All parts in order, until `end` of the monotonic clock; the script's status.

    An error of the disk or of the terminal ends no part. It changes the status.
    """
    states = dict.fromkeys(options.parts, "not run")
    troubles: list[str] = []

    def tell(text: str) -> None:
        if not say(text):
            troubles.append("the output was closed")

    def refresh() -> None:
        try:
            report(options, compose(options, head, states))
        except OSError as error:
            troubles.append(one_line(error))

    def run(name: str) -> str:
        limit = min(options.limits[name], end - time.monotonic() - LAST)
        if limit < min(LEAST, options.limits[name]):
            return LATE
        try:
            state = run_part(name, options, env, refresh, limit)
            return f"{state}; {counts(options, name)}"
        except (OSError, ValueError) as error:
            return f"failed, {one_line(error)}"

    try:
        refresh()
        for name in options.parts:
            states[name] = "running"
            states[name] = run(name)
            tell(f"{name}: {states[name]}")
            refresh()
    except Stopped as reason:
        for name in [name for name, state in states.items() if state == "running"]:
            states[name] = f"{reason}"
        say(f"gpu.sh: {reason}", sys.stderr)
    refresh()
    with contextlib.suppress(OSError):
        tell("\n" + compose(options, head, states))
    for text in dict.fromkeys(troubles):
        say(f"gpu.sh: {text}", sys.stderr)
    done = all(state.startswith("done") for state in states.values())
    return 0 if done and not troubles else 1


if __name__ == "__main__":
    raise SystemExit(main())
