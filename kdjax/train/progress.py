"""The progress bar of a job: steps done, images/s, metrics, time left."""

import datetime
import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class Bar:
    """A bar on a terminal; elsewhere a line now and then, so that logs stay short.

    unit: the name of one step of the bar.
    """

    def __init__(
        self, name: str, steps: int, start: int, console: Console, unit: str = "step"
    ):
        self._name, self._steps, self._console = f"{name}: {unit}", steps, console
        self._shown = start
        self._first: tuple[int, float] | None = None
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            name, total=steps, completed=start, text="compiling"
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def show(self, step: int, rate: float, text: str) -> None:
        """Move to `step` (after `rate` images a second since the last time)."""
        text = f"{rate:,.0f} images/s  {text}"
        self._progress.update(self._task, completed=step, text=text)
        left = self._left(step)
        if not self._console.is_terminal and (
            step - self._shown >= self._steps / 10 or step == self._steps
        ):
            self._shown = step
            self._console.print(
                f"{self._name} {step}/{self._steps}  {text}{left}",
                highlight=False,
                soft_wrap=True,
            )

    def _left(self, step: int) -> str:
        """Time left at the pace since the first call, which compilation delays."""
        now = time.monotonic()
        first, begun = self._first = self._first or (step, now)
        if step == first:
            return ""
        seconds = (self._steps - step) * (now - begun) / (step - first)
        return f"  left {datetime.timedelta(seconds=round(seconds))}"
