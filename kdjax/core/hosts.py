"""Several processes as one run: start, first process, barriers, global arrays."""

import contextlib
import itertools
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from kdjax.core.types import PyTree


def join(
    *,
    stops_together: bool = True,
    meet_within: float = 300.0,
    lost_after: float = 60.0,
) -> None:
    """Form one run with the other processes; call it before any other use of JAX.

    JAX finds the others by itself on TPU pods, SLURM, Kubernetes and Open MPI.
    Elsewhere it needs three environment variables: JAX_COORDINATOR_ADDRESS (host:port
    of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
      stops_together: a SIGTERM to one process stops all at the same step, with a
        checkpoint, as `reached_preemption` tells them. Else it ends that process.
      meet_within: seconds in which all processes must have come. Else JAX aborts.
      lost_after: seconds without a sign of another process after which this one is to
        end (`kdjax.core.liveness`). JAX aborts after 100 s at least, and no sooner.
    """
    jax.config.update("jax_enable_preemption_service", stops_together)

    def number(name: str) -> int | None:
        return int(os.environ[name]) if name in os.environ else None

    jax.distributed.initialize(
        num_processes=number("JAX_NUM_PROCESSES"),
        process_id=number("JAX_PROCESS_ID"),
        initialization_timeout=math.ceil(meet_within),
        # Later than kdjax, which names the process that is lost.
        heartbeat_timeout_seconds=max(100, math.ceil(2 * lost_after)),
    )


_looks = itertools.count(1)


def reached_preemption() -> bool:
    """True on all processes at the same call, once one has received SIGTERM.

    Every process must call it as often as the others do, as after each call of a
    compiled step. JAX makes the processes agree on the number of a call. It must not
    leave numbers out, as steps would that begin at a checkpoint, or come sixteen at a
    time.
    """
    if jax.process_count() == 1:
        return False
    try:
        return multihost_utils.reached_preemption_sync_point(next(_looks))
    except RuntimeError:
        # A program that formed the run itself, without JAX's preemption service.
        return False


# EX_TEMPFAIL of BSD's sysexits: start the command again.
RESTART = 75
# What collectives say where another process has closed its connection.
_LOST = re.compile(r"Gloo|Connection (closed|reset)|coordination service")
# How XLA begins the text of an error.
_STATUS = re.compile(r"[A-Z_]+: ")
# Seconds that the first process gives the others to end by themselves.
_GRACE = 3.0


def means_lost(error: BaseException) -> bool:
    """True for an error of JAX that comes where another process has gone.

    It is a `JaxRuntimeError`, or a `ValueError` where values are fetched.
    """
    text = str(error)
    of_xla = isinstance(error, JaxRuntimeError) or (
        isinstance(error, ValueError) and _STATUS.match(text)
    )
    return bool(of_xla and _LOST.search(text))


def end_for(lost: str) -> None:
    """End this process at once, with one line that names what was lost.

    Other threads of JAX may wait for a lost process for ever.
    """
    print(f"kdjax: {lost}: start all again", file=sys.stderr, flush=True)
    os._exit(RESTART)


@contextlib.contextmanager
def leave_at_once() -> Iterator[None]:
    """End this process where the block raises, with its exit status or 1.

    At its exit JAX would wait five minutes for processes that wait for this one.
    """
    try:
        yield
        return
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        if means_lost(error):
            # JAX is about to abort this process, which names the other.
            time.sleep(_GRACE)
            end_for("another process has gone")
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        # When it ends, JAX aborts all others, which may be about to say the same.
        time.sleep(_GRACE)
    os._exit(code)


def is_first() -> bool:
    """True in the process that writes files and prints: number 0."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """A barrier: return once every process has called it with the same name.

    name: without paths, which may differ from host to host.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: int) -> int:
    """The first process's number, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(value: bool) -> bool:
    """True on every process where the value is true on one of them."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.int32(value)).any())


def fetch_global(tree: PyTree) -> PyTree:
    """NumPy copies of arrays whose parts may be on several processes.

    Every process must call it, and each gets whole arrays.
    """

    def copy(x: jax.Array) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(jax.device_get(x))

    return jax.tree.map(copy, tree)
