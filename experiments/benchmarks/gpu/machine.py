"""The machine of the GPU script: what is there, and what is missing. Needs no JAX."""

import argparse
import datetime
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata

ROOT = pathlib.Path(__file__).parents[3]
ALL, DIGITS = "all parts", "the digits job of laws"
# A module, and who needs it.
MODULES = {
    **{name: ALL for name in ("jax", "flax", "optax", "orbax.checkpoint", "numpy")},
    **{name: ALL for name in ("grain", "filelock", "rich", "tensorstore", "scipy")},
    **{name: ALL for name in ("safetensors", "absl", "matplotlib")},
    "sklearn": DIGITS,
    "torch": "the PyTorch rows of cifar",
    "tyro": "no part: the command line alone",
    "tensorflow_datasets": "no part: data sets by name alone",
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "torch")


def run_quiet(*command: str, seconds: float = 60) -> tuple[int, str]:
    """Status and output of a command; status 1 where it does not exist."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, (done.stdout.strip() or done.stderr.strip())


def missing() -> list[str]:
    """A line for each module that is not there."""
    lines = []
    for name, need in MODULES.items():
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            lines.append(f"missing: {name} (needed by {need})")
    return lines


def versions() -> str:
    """The packages that the numbers depend on, with their versions."""
    texts = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            texts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            texts.append(f"{name} not installed")
    return ", ".join(texts)


PROBE = """
import jax
import kdjax.jobs
device = jax.devices()[0]
limit = (device.memory_stats() or {}).get("bytes_limit", 0) / 2**30
print(f"{device.platform}: {device.device_kind}, {limit:.1f} GiB for JAX")
"""


def probe(options: argparse.Namespace, env: dict[str, str]) -> str:
    """The device that JAX finds; status 2 where kdjax or the GPU is missing."""
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        fail("importing kdjax took more than 120 s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        fail(f"kdjax cannot be imported: {last}")
    device = done.stdout.strip().splitlines()[-1]
    if not options.dry and not device.startswith(("gpu", "cuda")):
        fail(f"expected a GPU, found {device}; --dry runs toy sizes on CPU")
    return device


def fail(text: str):
    """End with status 2 and one line."""
    print(f"gpu.sh: {text}", file=sys.stderr)
    raise SystemExit(2)


def heading(options: argparse.Namespace, device: str, gaps: list[str]) -> str:
    """The first lines of the report: what is there, and what is missing."""
    git = run_quiet("git", "describe", "--always", "--dirty", "--abbrev=12")
    commit = options.commit or (git[1] if git[0] == 0 else "not known (see --commit)")
    query = "--query-gpu=name,driver_version,memory.total"
    smi = run_quiet("nvidia-smi", query, "--format=csv,noheader")
    now = datetime.datetime.now(datetime.UTC)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        "# One run of gpu.sh" + (", dry: toy sizes on CPU" if options.dry else ""),
        "",
        f"- {now:%Y-%m-%d %H:%M} UTC; commit {commit}",
        f"- GPU and driver: {smi[1].splitlines()[0] if smi[0] == 0 else 'none found'}",
        f"- JAX on {device}",
        f"- host: {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"- {versions()}",
        f"- CIFAR images: {options.cifar.name if options.cifar else 'synthetic'}",
        *[f"- {line}" for line in gaps],
    ]
    return "\n".join(lines) + "\n"
