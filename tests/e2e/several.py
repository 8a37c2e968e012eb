"""Commands as several real processes on this machine, which find each other."""

import os
import pathlib
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).parents[2]

# On a busy machine a process may wait for another longer than XLA's 40 seconds, after
# which it aborts.
PATIENT = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=600 "
    "--xla_cpu_collective_timeout_seconds=600"
)


def begin(command, processes, devices, variables=()):
    """Start a command as several processes that find each other.

    variables: of the environment of each, if any.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    running = []
    for i in range(processes):
        environment = {
            **os.environ,
            "XLA_FLAGS": PATIENT,
            "PYTHONPATH": str(ROOT),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(i),
            **(variables[i] if variables else {}),
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
    return running


def together(command, processes, devices, variables=()):
    """Run a command as several processes; their exits and outputs."""
    running = begin(command, processes, devices, variables)
    try:
        outputs = [p.communicate(timeout=900)[0] for p in running]
    finally:
        # One that fails leaves the other waiting for it.
        for process in running:
            process.kill()
            process.wait()
    return [p.returncode for p in running], outputs


def with_child(process):
    """The numbers of a process and of the child that does its work."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [process.pid, *map(int, path.read_text().split())]


def wait_for(begun, running):
    """Return once `begun()`, while every process runs; at most 5 minutes."""
    deadline = time.monotonic() + 300
    while not begun():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in running)
        time.sleep(0.2)
