"""A disk without space: one line, nothing lost, and the same command goes on."""

import json
import subprocess
import sys

import pytest

from kdjax.core import runlog

# Real processes: the full tier.
pytestmark = pytest.mark.full

# Files of at most so many bytes; Python ignores the signal of larger ones.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from kdjax.cli.main import main
main(sys.argv[2:])
"""
RUN = ["--steps", "60", "--seeds", "1", "--checkpoint-every", "20"]
RUN += ["--evaluate-every", "40", "--log-every", "10"]


def train(folder, limit):
    command = [sys.executable, "-c", LIMITED, str(limit), "train", *RUN]
    command += ["--workdir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.splitlines()


# The metadata of a checkpoint have some 30 kB, config.json 4 kB.
@pytest.mark.parametrize(
    ("limit", "text"),
    [(20_000, "a checkpoint could not be written"), (1_000, "cannot write")],
)
def test_one_line_and_the_same_command_goes_on(tmp_path, limit, text):
    code, lines = train(tmp_path / "run", limit)
    (line,) = [x for x in lines if "optim.warmup" not in x]
    assert code in (1, 2) and line.startswith("kdjax: ") and text in line
    assert len(line) < 300 + len(str(tmp_path))
    code, lines = train(tmp_path / "run", 10**9)
    assert code == 0, lines
    assert train(tmp_path / "whole", 10**9)[0] == 0
    ours, whole = (runlog.read_summary(tmp_path / x) for x in ("run", "whole"))
    assert json.dumps(ours["test"]) == json.dumps(whole["test"])
