"""Progress of a job: its stage, steps done, steps/s, metrics, time left."""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Longest time without a line where there is no terminal, in seconds.
SILENCE = 30.0
# A stage that takes less time has no line with its time.
_SHORT = 1.0


@contextlib.contextmanager
def stage(console: Console, text: str) -> Iterator[None]:
    """Print what a job is doing, and how long it took where that was long.

    On a terminal the text stands with a spinner until the stage is over.
    """
    begun = time.monotonic()
    if console.is_terminal:
        running: Any = console.status(f"{text} ...")
    else:
        _print(console, f"{text} ...")
        running = _Reminder(console, lambda: f"{text}: {_since(begun)} so far")
    with running:
        yield
    if time.monotonic() - begun >= _SHORT:
        _print(console, f"{text}: {_since(begun)}")


def _since(begun: float) -> str:
    return f"{time.monotonic() - begun:.1f} s"


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Reminder:
    """Prints a line whenever nothing was printed for `SILENCE` seconds.

    text: returns the line.
    """

    def __init__(self, console: Console, text: Callable[[], str]):
        self._console, self._text = console, text
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Reminder":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def print(self, text: str) -> None:
        """Print a line now, and wait for another silence."""
        self._last = time.monotonic()
        _print(self._console, text)

    def _watch(self) -> None:
        left = SILENCE
        while not self._stop.wait(left):
            left = self._last + SILENCE - time.monotonic()
            if left <= 0:
                self.print(self._text())
                left = SILENCE


class Bar:
    """A bar on a terminal; elsewhere a line every tenth of the steps or 30 s.

    unit: the name of one step of the bar.
    """

    def __init__(
        self, name: str, steps: int, start: int, console: Console, unit: str = "step"
    ):
        self._name, self._steps, self._console = f"{name}: {unit}", steps, console
        self._step = self._shown = self._measured = start
        self._begun = time.monotonic()
        self._text = ""
        self._first: tuple[int, float] | None = None
        self._reminder = _Reminder(console, self._line)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            name, total=steps, completed=start, text="compiling"
        )

    def __enter__(self) -> "Bar":
        if self._console.is_terminal:
            self._progress.start()
        else:
            _print(self._console, f"{self._name} {self._step}/{self._steps}  compiling")
            self._reminder.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._console.is_terminal:
            self._progress.stop()
        else:
            self._reminder.__exit__()

    def compiled(self, seconds: float) -> None:
        """Print the time of the first call, which compiles its program."""
        if seconds >= _SHORT:
            self._reminder.print(f"{self._name} program compiled in {seconds:.1f} s")
        self._text = "first steps"
        self._progress.update(self._task, text=self._text)

    def advance(self, step: int) -> None:
        """Move to `step`, without new metrics."""
        self._step = step
        self._progress.update(self._task, completed=step)

    def show(self, step: int, rate: float, text: str) -> None:
        """Move to `step` (after `rate` images a second since the last time)."""
        self._step = self._measured = step
        self._text = f"{rate:,.0f} images/s  {text}"
        self._progress.update(self._task, completed=step, text=self._text)
        self._text += self._left(step)
        due = step - self._shown >= self._steps / 10 or step == self._steps
        if due and not self._console.is_terminal:
            self._shown = step
            self._reminder.print(self._line())

    def _line(self) -> str:
        text = self._text or f"compiling: {_since(self._begun)} so far"
        if self._step != self._measured:
            text += f"  (as of step {self._measured})"
        return f"{self._name} {self._step}/{self._steps}  {text}"

    def _left(self, step: int) -> str:
        """Time left at the pace since the first call, which compilation delays."""
        now = time.monotonic()
        first, begun = self._first = self._first or (step, now)
        if step == first:
            return ""
        seconds = (self._steps - step) * (now - begun) / (step - first)
        return f"  left {datetime.timedelta(seconds=round(seconds))}"
