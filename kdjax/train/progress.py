"""The progress bar of a run: step, images/s, loss, agreement, time left."""

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
    """A bar on a terminal; elsewhere a line now and then, so that logs stay short."""

    def __init__(self, name: str, steps: int, start: int, console: Console):
        self._name, self._steps, self._console = name, steps, console
        self._shown = start
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

    def show(
        self, step: int, rate: float, loss: float, agreement: float | None
    ) -> None:
        """Move to `step` (after `rate` images a second since the last time)."""
        text = f"{rate:,.0f} images/s  loss {loss:.4f}"
        if agreement is not None:
            text += f"  agreement {100 * agreement:.1f} %"
        self._progress.update(self._task, completed=step, text=text)
        if not self._console.is_terminal and (
            step - self._shown >= self._steps / 10 or step == self._steps
        ):
            self._shown = step
            self._console.print(
                f"{self._name}: step {step}/{self._steps}  {text}",
                highlight=False,
                soft_wrap=True,
            )
