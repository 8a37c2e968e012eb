"""What the parent of a process passes on, and what it keeps back."""

import subprocess
import sys

import pytest

BEGIN = "import os, sys, time\nfrom kdjax.core import supervise\n"
BEGIN += "supervise.go_on_in_child()\n"
# As JAX writes it where the first process, or the third one, has died.
GONE = """
E1 coordination_service_agent.cc:289] Polled an error from coordination service
F1 client.h:80] The JAX distributed service detected fatal errors.{task}
*** Check failure stack trace: ***
"""
CASES = {
    "ends well": ("print('out'); sys.stderr.write('a\\nb')", 0, "out\na\nb"),
    "fails": ("print('no', file=sys.stderr); sys.exit(3)", 3, "no\n"),
    "is killed": ("os.kill(os.getpid(), 9)", 137, ""),
    "aborts": ("os.write(2, b'a bug\\n'); os.abort()", 134, "a bug\n"),
    "the first has gone": (
        f"os.write(2, b'''before{GONE.format(task='')}'''); os.abort()",
        75,
        "before\nkdjax: process 0 has gone: start all again\n",
    ),
    "the third has gone": (
        f"os.write(2, b'''{GONE.format(task='/task:2')}'''); os.abort()",
        75,
        "\nkdjax: process 2 has gone: start all again\n",
    ),
    "not all have met": (
        f"os.write(2, b'''{GONE.format(task='')}RPC: /xla/RegisterTask'''); os.abort()",
        75,
        "\nkdjax: not all processes have met; JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES or JAX_PROCESS_ID may be wrong, or MEGASCALE_* after a "
        "slice was replaced: start all again\n",
    ),
    "such a text without an abort": (
        "os.write(2, b'x\\nE1 coordination_service: y\\n'); print('end', flush=True)",
        0,
        "end\nx\nE1 coordination_service: y\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_end_of_a_child(case):
    script, code, text = CASES[case]
    words = [sys.executable, "-c", BEGIN + script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert done.stdout + done.stderr == text
