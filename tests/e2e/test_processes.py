"""Two real processes on this machine form one run, equal to one process."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

from kdjax.core import runlog

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"{ROOT / 'experiments' / 'function_matching' / 'digits.py'}:tiny"


def start(workdir, *, processes, devices, options=(), baselines=("labels",)):
    """Start `kdjax distill` as several processes; their exits and outputs."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "kdjax", "distill", "--config", CONFIG]
    command += ["--workdir", str(workdir), "--baselines", *baselines, *options]
    command += ["--compute.several-processes", str(processes > 1)]
    running = []
    for i in range(processes):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(i),
        }
        running.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [p.communicate(timeout=300)[0] for p in running]
    return [p.returncode for p in running], outputs


def numbers(folder):
    return [
        (line["kind"], line["step"], np.asarray(line.get("loss", line.get("kl", 0.0))))
        for line in runlog.read_metrics(folder)
    ]


def check_equal(folder, other):
    ours, theirs = numbers(folder), numbers(other)
    assert [x[:2] for x in ours] == [x[:2] for x in theirs]
    # Sums come in another order; a batch dealt out wrongly would be far off.
    for a, b in zip(ours, theirs, strict=True):
        # A small KL is a difference of logarithms: their rounding is absolute.
        np.testing.assert_allclose(a[2], b[2], rtol=2e-5, atol=2e-6)


def test_two_processes_equal_one(tmp_path):
    """Teacher, baseline and student, 2 x 2 devices against 1 x 4, fsdp included."""
    # SGD: Adam's division makes a rounding of 1e-7 a difference of 1e-3 in 20 updates.
    sgd = "--optim.name", "sgd", "--teacher.optim.name", "sgd"
    layout = ("--compute.fsdp", "2", "--model.width", "8", *sgd)
    codes, outputs = start(tmp_path / "two", processes=2, devices=2, options=layout)
    assert codes == [0, 0], outputs
    assert "funmatch" in outputs[0] or "tiny" in outputs[0]
    assert "tiny" not in outputs[1], "only the first process speaks"
    codes, outputs = start(tmp_path / "one", processes=1, devices=4, options=layout)
    assert codes == [0], outputs
    for part in ("teacher", "labels", "."):
        check_equal(tmp_path / "two" / part, tmp_path / "one" / part)
    # The same student with images that each process decodes for its own rows.
    other = *layout, "--data.feed", "streamed"
    other += "--teacher.run", str(tmp_path / "one" / "teacher")
    options = {"processes": 2, "devices": 2, "options": other, "baselines": ()}
    codes, outputs = start(tmp_path / "streamed", **options)
    assert codes == [0, 0], outputs
    check_equal(tmp_path / "streamed", tmp_path / "one")
    again, outputs = start(tmp_path / "two", processes=1, devices=2, options=layout)
    assert again == [0] and "finished" in outputs[0]
