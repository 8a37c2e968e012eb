"""What every benchmark says beside its numbers."""

import datetime
import os
import pathlib
import platform
import subprocess

import jax


def processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return f"{names[0] if names else 'processor not known'}, {os.cpu_count()} cores"


def circumstances(command: str) -> str:
    """Where, when and of what the numbers are."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    device, load = jax.devices()[0], os.getloadavg()[0]
    return "\n".join(
        [
            f"- command: `{command}`",
            f"- machine: {processor()}; load {load:.1f} at the end",
            f"- device: {device.platform} ({device.device_kind})",
            f"- jax {jax.__version__}, Python {platform.python_version()}",
            f"- commit: {commit.strip() or 'not known'}; {datetime.date.today()}",
        ]
    )
