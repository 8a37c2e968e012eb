"""The machine of the GPU script: what is there, and what is missing. Needs no JAX."""

import argparse
import contextlib
import ctypes
import datetime
import importlib.util
import os
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[3]
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
# Modules that some rows need. The probe imports the others.
TRIED = ("sklearn", "torch")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "torch")
# The variable with the process that started this one.
PARENT = "GPU_SCRIPT_PARENT"
# Variables that change the numbers.
VARIABLES = (
    "XLA_FLAGS",
    "NVIDIA_TF32_OVERRIDE",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "CUDA_VISIBLE_DEVICES",
)


def for_child(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that dies with this one."""
    return {**env, PARENT: str(os.getpid())}


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends."""
    with contextlib.suppress(OSError, AttributeError):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    parent = str(os.getppid())
    if os.environ.get(PARENT, parent) != parent:
        # It ended before this line, while modules were imported.
        os._exit(1)


def run_quiet(*command: str, seconds: float = 10) -> tuple[int, str]:
    """Status and output of a command; status 1 where it does not exist."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, (done.stdout.strip() or done.stderr.strip())


def exists(name: str) -> bool:
    """Whether a module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def missing() -> list[str]:
    """A line for each module that is not there."""
    return [
        f"missing: {name} (needed by {need})"
        for name, need in MODULES.items()
        if not exists(name)
    ]


class Trials:
    """Imports of single modules, each in a process of its own, beside the probe."""

    def __init__(self, env: Mapping[str, str], names: tuple[str, ...] = TRIED):
        self._running = {
            name: subprocess.Popen(
                [sys.executable, "-c", f"import {name}"],
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
            if exists(name)
        }

    def lines(self, seconds: float = 60) -> list[str]:
        """A line for each module that is there and cannot be imported."""
        lines = []
        for name, process in self._running.items():
            try:
                text = process.communicate(timeout=seconds)[1]
            except subprocess.TimeoutExpired:
                why = f"its import takes more than {seconds:g} s"
            else:
                last = (text.strip().splitlines() or [""])[-1]
                why = last or f"its import ends with status {process.returncode}"
            if process.returncode != 0:
                lines.append(f"missing: {name} (needed by {MODULES[name]}): {why}")
        self.end()
        return lines

    def end(self) -> None:
        """Kill the imports that still run."""
        for process in self._running.values():
            process.kill()
            process.communicate()


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
            command, env=env, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        fail("importing kdjax took more than 120 s")
    messages = done.stderr.strip().splitlines()
    if done.returncode:
        status = f"the probe ended with status {done.returncode}"
        fail(f"kdjax cannot be imported: {(messages or [status])[-1]}")
    device = done.stdout.strip().splitlines()[-1]
    if not options.dry and not device.startswith(("gpu", "cuda")):
        # With the reason why JAX did not take the GPU.
        print(*messages[-20:], sep="\n", file=sys.stderr)
        fail(f"expected a GPU, found {device}; --dry runs toy sizes on CPU")
    return device


def fail(text: str) -> NoReturn:
    """End with status 2 and one line."""
    print(f"gpu.sh: {text}", file=sys.stderr)
    raise SystemExit(2)


def commit() -> str:
    """The commit of this checkout; a folder inside another repository has none."""
    status, top = run_quiet("git", "rev-parse", "--show-toplevel")
    if status == 0 and pathlib.Path(top).resolve() == ROOT:
        status, text = run_quiet(
            "git", "describe", "--always", "--dirty", "--abbrev=12"
        )
        if status == 0:
            return text
    return "not known (see --commit)"


def graphics(env: Mapping[str, str]) -> str:
    """Name, driver and memory of the one GPU that the parts may see."""
    chosen = env.get("CUDA_VISIBLE_DEVICES", "")
    if not chosen:
        return "none chosen"
    query = "--query-gpu=name,driver_version,memory.total"
    smi = run_quiet("nvidia-smi", "-i", chosen, query, "--format=csv,noheader")
    return smi[1].splitlines()[0] if smi[0] == 0 and smi[1] else "not known"


def heading(
    options: argparse.Namespace, device: str, gaps: list[str], env: Mapping[str, str]
) -> str:
    """The first lines of the report: what is there, and what is missing."""
    now = datetime.datetime.now(datetime.UTC)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    given = [f"`{name}={env[name]}`" for name in VARIABLES if env.get(name)]
    lines = [
        "# One run of gpu.sh" + (", dry: toy sizes on CPU" if options.dry else ""),
        "",
        f"- {now:%Y-%m-%d %H:%M} UTC; commit {options.commit or commit()}",
        f"- GPU and driver: {graphics(env)}",
        f"- JAX on {device}",
        f"- host: {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"- {versions()}",
        f"- variables: {', '.join(given) or 'none of ' + ', '.join(VARIABLES)}",
        f"- CIFAR images: {options.cifar.name if options.cifar else 'synthetic'}",
        *[f"- {line}" for line in gaps],
    ]
    return "\n".join(lines) + "\n"
