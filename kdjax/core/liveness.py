"""Processes of one run that hear of each other: a lost one ends the others."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator

import jax
from jax.errors import JaxRuntimeError

from kdjax.core import bucket, hosts, runlog

_DONE = b"done"


@contextlib.contextmanager
def watch_others(folder: runlog.Path, seconds: float) -> Iterator[None]:
    """Within the block, end this process once another one is silent for `seconds`.

    Each process writes a count to a file of its own in the folder, and reads those of
    the others. No clocks are compared. One line names the lost process, and the exit
    status is `hosts.RESTART`. Nothing is done in a run of one process.

    Where the first process dies, JAX aborts the others at once: see
    `kdjax.core.supervise`.

    Args:
      folder: of the run, which all processes see.
      seconds: longer than any pause of a process that goes on.
    """
    if jax.process_count() == 1:
        yield
        return
    watch = _Watch(pathlib.Path(folder), seconds)
    watch.write(b"0")
    hosts.wait_for_all("begun to watch")
    watch.start()
    try:
        yield
        hosts.wait_for_all("watched")
        watch.finish()
    except Exception as error:
        # The connection to a process that has died: wait for its name.
        if isinstance(error, JaxRuntimeError) or hosts.means_lost(error):
            watch.join(seconds + 2 * watch.pause)
        raise
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Writes the count of this process, and looks at those of the others."""

    def __init__(self, folder: pathlib.Path, seconds: float):
        super().__init__(daemon=True)
        self.pause = min(seconds / 10, 5.0)
        self._folder, self._seconds = folder, seconds
        self._stopped = threading.Event()

    def write(self, content: bytes) -> None:
        # A full disk ends the run elsewhere.
        with contextlib.suppress(runlog.RunFolderError):
            bucket.write_bytes(self._file(jax.process_index()), content)

    def finish(self) -> None:
        """Tell the others not to wait for more; after an error, they shall miss it."""
        self.stop()
        self.write(_DONE)

    def stop(self) -> None:
        self._stopped.set()
        self.join(1.0)

    def run(self) -> None:
        count, own = jax.process_count(), jax.process_index()
        others = [i for i in range(count) if i != own]
        heard = {other: (self._read(other), time.monotonic()) for other in others}
        beat = 0
        while not self._stopped.wait(self.pause):
            beat += 1
            self.write(str(beat).encode())
            now = time.monotonic()
            for other, (before, since) in heard.items():
                content = self._read(other)
                if content != before:
                    heard[other] = content, now
                elif content != _DONE and now - since > self._seconds:
                    name = f"process {other} of {count}"
                    hosts.end_for(f"{name} was not heard of for {self._seconds:g} s")

    def _read(self, other: int) -> bytes:
        with contextlib.suppress(OSError):
            return bucket.read_bytes(self._file(other))
        return b""

    def _file(self, process: int) -> pathlib.Path:
        file = self._folder / f"{runlog.TEMPORARY}alive-{process}"
        return bucket.find_place(file)
