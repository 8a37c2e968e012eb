"""Order, limits and report of the parts of the GPU script. Needs no JAX itself.

Each part is a process of its own with a time limit. The report and its copy are made
again whenever a part has written, so a stop at any second loses one row at most.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

from experiments.benchmarks.gpu.machine import ROOT, heading, missing, probe
from experiments.benchmarks.gpu.tables import write

# Seconds a part may take. Their sum leaves 20 s of 8 minutes for the start.
LIMITS = {"laws": 95, "cifar": 150, "bit": 130, "kernels": 35, "profile": 50}
# Seconds before its limit from which a part starts no row.
MARGIN = 3


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
    options = parser.parse_args(given)
    try:
        check(options)
    except ValueError as error:
        print(f"gpu.sh: {error}", file=sys.stderr)
        raise SystemExit(2) from None
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
    if options.cifar is not None:
        check_arrays(options.cifar)


def check_arrays(path: pathlib.Path) -> None:
    """Raise ValueError unless a file holds CIFAR's images and labels."""
    import numpy as np

    want = "--cifar: expected a .npz of images uint8 [n, 32, 32, 3] and labels [n]"
    if not path.is_file():
        raise ValueError(f"{want}; no file {path}")
    try:
        with np.load(path) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"{want}; {path}: {text}") from None
    good = images.shape[1:] == (32, 32, 3) and labels.shape == images.shape[:1]
    if not good or images.dtype != np.uint8 or len(images) < 512:
        got = f"{images.dtype} {images.shape} and {labels.shape}"
        raise ValueError(f"{want}, n >= 512; got {got}")


def environment(dry: bool, cache: str) -> dict[str, str]:
    """Variables of the parts."""
    values = dict(os.environ)
    values["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    values.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    values.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    values["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    values["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if dry:
        values.update(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1")
    else:
        # One GPU, and the CPU beside it to compare with.
        values.pop("JAX_PLATFORMS", None)
        values.setdefault("CUDA_VISIBLE_DEVICES", "0")
    return values


def report(options: argparse.Namespace, head: str, states: dict[str, str]) -> None:
    """Write gpu.md anew from the files of the parts, and the copy."""
    folder, texts = options.out / "parts", [head]
    texts.append("".join(f"- {name}: {state}\n" for name, state in states.items()))
    for name in options.parts:
        file = folder / f"{name}.md"
        texts.append(file.read_text() if file.exists() else f"## {name}\n\nNo rows.\n")
    write(options.out / "gpu.md", "\n".join(texts))
    if options.copy is None:
        return
    options.copy.mkdir(parents=True, exist_ok=True)
    archive = options.copy / ".gpu.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for file in sorted(folder.glob("[!.]*")):
            tar.add(file, f"parts/{file.name}")
    archive.replace(options.copy / "gpu.tar.gz")
    write(options.copy / "gpu.md", (options.out / "gpu.md").read_text())


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


def run_part(name: str, options, env: dict[str, str], refresh) -> str:
    """Run one part to its end or limit; its state in one phrase."""
    limit, folder = options.limits[name], options.out / "parts"
    command = [sys.executable, "-m", "experiments.benchmarks.gpu.part", name]
    command += [str(folder.resolve()), "--seconds", str(max(limit - MARGIN, 0.1))]
    command += ["--dry"] if options.dry else []
    command += ["--cifar", str(options.cifar.resolve())] if options.cifar else []
    start, last = time.monotonic(), 0.0
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=log, stderr=log, process_group=0
        )
        try:
            while process.poll() is None:
                if time.monotonic() - start > limit:
                    return f"stopped at its limit of {limit:g} s"
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


def main() -> int:
    """Run the parts; 0 where all ended by themselves, 1 where not, 2 before any."""
    options = arguments()
    gaps = missing()
    for line in gaps:
        print(line)
    cache = tempfile.mkdtemp(prefix="gpu-cache-")
    env = environment(options.dry, cache)

    def stopped(number: int, _frame) -> None:
        raise Stopped(f"stopped by signal {number}")

    signal.signal(signal.SIGTERM, stopped)
    try:
        device = probe(options, env)
        head = heading(options, device, gaps)
        print(head)
        folder = options.out / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.parts:
            for suffix in ("json", "md", "log"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        return run_parts(options, env, head)
    except Stopped as reason:
        print(f"gpu.sh: {reason}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def run_parts(options: argparse.Namespace, env: dict[str, str], head: str) -> int:
    """All parts in order; the script's status."""
    states = dict.fromkeys(options.parts, "not run")

    def refresh() -> None:
        report(options, head, states)

    refresh()
    try:
        for name in options.parts:
            states[name] = "running"
            states[name] = run_part(name, options, env, refresh)
            states[name] += f"; {counts(options, name)}"
            print(f"{name}: {states[name]}", flush=True)
            refresh()
    except (Stopped, KeyboardInterrupt) as error:
        running = [name for name, state in states.items() if state == "running"]
        for name in running:
            states[name] = str(error) or "interrupted"
        print(f"gpu.sh: {error or 'interrupted'}", file=sys.stderr)
    refresh()
    print(f"\n{(options.out / 'gpu.md').read_text()}")
    return 0 if all(state.startswith("done") for state in states.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
