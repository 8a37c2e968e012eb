"""The time that a training spends on each part: `events.jsonl` in its run folder.

Each process that trains in the folder is an attempt. It writes a line `start`, lines
`steps`, and a line `end` unless it is killed. Standard library only.
"""

import contextlib
import json
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from kdjax.core import runlog
from kdjax.core.safe_read import parse_json

FILE = "events.jsonl"
# Parts of the time of `steps`; the rest is the steps themselves.
PARTS: tuple[str, ...] = ("compile", "data", "evaluation", "checkpoint")

# When the preparation of the next training began, and this process if it is a command.
# The clock of the system may jump, so that it tells no duration.
_begun, _process = time.monotonic(), 0.0


def begin_process() -> None:
    """Count the time from now on as preparation of the first job of this process."""
    global _process
    _process = time.monotonic()


def begin() -> None:
    """Start the clock of the next training of this process: its preparation counts."""
    global _begun, _process
    _begun, _process = _process or time.monotonic(), 0.0


class Timeline:
    """The events of one attempt.

    write: a function of the fields of an event, as `make_writer` returns it.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None] = lambda _: None):
        self._write = write
        self._spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._since = time.monotonic()
        self._step = 0

    def start(self, step: int, restore: float = 0.0) -> None:
        """Write that training begins after `step` steps.

        restore: seconds of reading the checkpoint.
        """
        now = time.monotonic()
        setup = max(now - _begun - restore, 0.0)
        self._since, self._step = now, step
        self._put("start", step=step, setup=setup, restore=restore)

    @contextlib.contextmanager
    def spend(self, part: str) -> Iterator[None]:
        """Count the time of the block as one of `PARTS`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._spent[part] += time.perf_counter() - begun

    def steps(self, step: int, **more: Any) -> None:
        """Write the time since the last event, up to and with a step."""
        now = time.monotonic()
        parts = {k: round(x, 3) for k, x in self._spent.items() if x}
        fields = {"from": self._step, "step": step, "seconds": now - self._since}
        self._put("steps", **fields, **parts, **more)
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._since, self._step = now, step

    def end(self, reason: str) -> None:
        """Write why the process stops: finished, stopped, or the kind of an error."""
        if any(self._spent.values()):
            self.steps(self._step)
        seconds = time.monotonic() - self._since
        self._put("end", step=self._step, seconds=seconds, reason=reason)

    def _put(self, event: str, **fields: Any) -> None:
        numbers = {k: round(x, 3) if type(x) is float else x for k, x in fields.items()}
        self._write({"event": event, "time": round(time.time(), 3), **numbers})


def make_writer(folder: runlog.Path) -> Callable[[dict[str, Any]], None]:
    """A function that appends an event to the file of a run folder.

    Where it cannot be written the training goes on: its metrics end it if they cannot
    be written either.
    """
    path = pathlib.Path(folder) / FILE

    def write(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), open(path, "ab+") as stream:
            stream.seek(max(stream.tell() - 1, 0))
            torn = stream.read() not in (b"", b"\n")
            stream.write(b"\n" * torn + json.dumps(event).encode() + b"\n")

    return write


def read_events(folder: runlog.Path, warn: bool = False) -> list[dict[str, Any]]:
    """The events of a run folder in order.

    Lines that are none are left out.

    warn: with one warning. A last line that is cut off is being written, or was when
        the process was killed, and gets none.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        return []
    events, broken = [], 0
    *lines, last = path.read_bytes().split(b"\n")
    for line in (*lines, last):
        event = None
        with contextlib.suppress(ValueError):
            event = parse_json(line)
        if _is_event(event):
            events.append(event)
        elif line is not last:
            broken += 1
    if broken and warn:
        text = f"{path}: lines that are no events are left out ({broken})"
        warnings.warn(text, stacklevel=2)
    return events


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or event.get("event") not in NUMBERS:
        return False
    names = ("time", *NUMBERS[event["event"]])
    return all(type(event.get(name)) in (int, float) for name in names)


# Numbers that each kind of event has.
NUMBERS = {
    "start": ("step", "setup", "restore"),
    "steps": ("step", "from", "seconds"),
    "end": ("step",),
}
