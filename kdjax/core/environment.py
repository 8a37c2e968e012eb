"""The machine, the versions and the command line of this process."""

import functools
import hashlib
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from importlib import metadata

import jax


def command() -> str:
    """The command line of this process, as it can be typed again."""
    name = pathlib.Path(sys.argv[0]).name
    if name == "kdjax" or name == "__main__.py":
        return shlex.join(["kdjax", *sys.argv[1:]])
    return f"called from Python ({name or 'interactive'})"


def machine() -> str:
    """The devices, the architecture and the cores of this machine."""
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    cores = _cores()
    return f"{kind}, {platform.machine()}, {cores} CPU core{'s' * (cores != 1)}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def versions() -> dict[str, str]:
    """Versions by package; that of kdjax with the commit of its checkout."""
    names = ("kdjax", "jax", "flax", "optax", "orbax-checkpoint")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    commit = _commit()
    if commit:
        versions["kdjax"] += f" ({commit})"
    return versions


def _commit() -> str:
    """The commit that kdjax runs from, with a + where files have changed since.

    Empty where kdjax is not a checkout.
    """
    file = pathlib.Path(__file__).resolve()
    options = {"cwd": file.parent, "capture_output": True, "text": True}

    def run_git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], **options)

    try:
        tracked = run_git("ls-files", "--error-unmatch", file.name)
        commit = run_git("describe", "--always")
        changed = run_git("diff", "--quiet", "HEAD")
    except OSError:
        return ""
    if tracked.returncode or commit.returncode:
        return ""
    return commit.stdout.strip() + ("+" if changed.returncode else "")


@functools.cache
def code_digest() -> str:
    """16 digits of the SHA-256 of all source files of kdjax."""
    package, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
