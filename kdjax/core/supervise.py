"""A parent of one process of a run, which tells in one line that JAX gave up.

Where the first process of a run dies, JAX aborts all others at once, each with some
hundred lines. Nothing within a process can stop that.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import sys

from kdjax.core.hosts import RESTART

# From the first line on that has one of these, lines are kept back for a moment.
_BEGINS = re.compile(
    rb"coordination_service|preemption_sync_manager|JAX distributed service"
    rb"|^Traceback \(most recent|Gloo \w+ failed"
)
_GAVE_UP = re.compile(rb"JAX distributed service detected fatal errors")
# How the service names a process; it runs in the first one, which it does not name.
_TASK = re.compile(rb"task:(\d+)")
# A call to the service that fails where not all processes have met.
_NOT_MET = re.compile(rb"RegisterTask|Barrier timed out")
# Seconds after which lines that no abort follows are passed on.
_PATIENCE = 3.0
_FORWARDED = "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT"
_PR_SET_PDEATHSIG = 1


def go_on_in_child() -> None:
    """Return in a child of this process; this one waits for it and ends as it does.

    Signals go on to the child. Its standard error is passed on, but for the text of
    JAX's abort: one line names the lost process, and the exit status is
    `hosts.RESTART`. Call it before anything starts a thread. Without `fork`, as on
    Windows, nothing is done.
    """
    if not hasattr(os, "fork"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 2)
        os.close(write)
        # Ctrl-C in a terminal reaches the parent alone, which passes it on once.
        os.setpgid(0, 0)
        _end_with(parent)
        return
    os.close(write)
    _forward_signals(child)
    kept = _pass_on(read)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGABRT and _GAVE_UP.search(kept):
        kept = f"kdjax: {_describe(kept)}: start all again\n".encode()
        code = RESTART
    _write(kept)
    os._exit(code if code >= 0 else 128 - code)


def _describe(kept: bytes) -> str:
    """The reason for which JAX gave up, from its text."""
    if _NOT_MET.search(kept):
        names = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES or JAX_PROCESS_ID"
        text = f"not all processes have met; {names} may be wrong, or MEGASCALE_* "
        return text + "after a slice was replaced"
    if task := _TASK.search(kept):
        return f"process {int(task[1])} has gone"
    # The service runs in the first process: without it there is no name.
    is_first = os.environ.get("JAX_PROCESS_ID") == "0"
    return f"{'another process' if is_first else 'process 0'} has gone"


def _end_with(parent: int) -> None:
    """Let this process be killed where its parent is; on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(RESTART)


def _forward_signals(child: int) -> None:
    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    def stop(_number: int, _frame: object) -> None:
        forward(signal.SIGSTOP, None)
        os.kill(os.getpid(), signal.SIGSTOP)

    for name in _FORWARDED:
        signal.signal(getattr(signal, name), forward)
    signal.signal(signal.SIGTSTP, stop)


def _pass_on(source: int) -> bytes:
    """Copy a pipe to standard error until it ends; the lines kept back at its end."""
    text, keeping = b"", False
    while True:
        ready, _, _ = select.select([source], [], [], _PATIENCE)
        if not ready:
            # The process goes on, so that the lines were about something else.
            _write(text)
            text, keeping = b"", False
            continue
        chunk = os.read(source, 65536)
        if not chunk:
            return text
        text += chunk
        if not keeping:
            lines = text.splitlines(keepends=True)
            begins = (i for i, line in enumerate(lines) if _BEGINS.search(line))
            at = next(begins, None)
            keeping = at is not None
            # A line that is not whole may yet begin such a text.
            whole = len(lines) if text.endswith(b"\n") else len(lines) - 1
            at = whole if at is None else at
            _write(b"".join(lines[:at]))
            text = b"".join(lines[at:])


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(2, text) :]
