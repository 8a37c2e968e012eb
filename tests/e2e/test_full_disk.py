"""A machine without space or descriptors: one line, and the same command goes on."""

import json
import os
import subprocess
import sys

import pytest

from kdjax.core import runlog

# Real processes: the full tier.
pytestmark = pytest.mark.full

# RLIMIT_FSIZE, files of at most so many bytes: Python ignores the signal of larger
# ones. RLIMIT_NOFILE, at most so many open files.
LIMITED = """
import resource, sys
kind, limit = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
from kdjax.cli.main import main
main(sys.argv[3:])
"""
RUN = ["--steps", "60", "--seeds", "1", "--checkpoint-every", "20"]
RUN += ["--evaluate-every", "40", "--log-every", "10"]


def train(folder, kind="RLIMIT_NOFILE", limit=1000):
    command = [sys.executable, "-c", LIMITED, kind, str(limit), "train", *RUN]
    command += ["--workdir", str(folder)]
    # Else JAX warns of programs that it cannot keep.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr.splitlines()


# The metadata of a checkpoint have some 30 kB, config.json 4 kB.
@pytest.mark.parametrize(
    ("kind", "limit", "text"),
    [
        ("RLIMIT_FSIZE", 20_000, "a checkpoint could not be written"),
        ("RLIMIT_FSIZE", 1_000, "cannot write"),
        ("RLIMIT_NOFILE", 48, "could not be written: too many files are open"),
    ],
)
def test_one_line_and_the_same_command_goes_on(tmp_path, kind, limit, text):
    code, lines = train(tmp_path / "run", kind, limit)
    (line,) = [x for x in lines if "optim.warmup" not in x]
    assert code in (1, 2) and line.startswith("kdjax: ") and text in line
    assert len(line) < 300 + len(str(tmp_path))
    code, lines = train(tmp_path / "run")
    assert code == 0, lines
    assert train(tmp_path / "whole")[0] == 0
    ours, whole = (runlog.read_summary(tmp_path / x) for x in ("run", "whole"))
    assert json.dumps(ours["test"]) == json.dumps(whole["test"])
