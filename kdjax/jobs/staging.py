"""Running stages one after another, with one report over all."""

import pathlib
from typing import Any

from rich.console import Console

from kdjax import reports, setup
from kdjax.config import Run, Stages, beneath, require_type
from kdjax.core import hosts, runlog
from kdjax.data.datasets import Splits
from kdjax.jobs.distilling import distill, train


def run_stages(
    stages: Stages, *, splits: Splits | None = None, console: Console | None = None
) -> pathlib.Path:
    """Train the stages in order. Resumes where an earlier call was interrupted.

    A stage with a teacher is distilled, and one without is trained. A finished stage
    is left as it is.

    Args:
      splits: arrays by split, in place of the data sets of all stages.

    Returns:
      The folder of the stages, with `report.md` and `curves.png` over all.
    """
    require_type(stages, Stages, "stages", "a kdjax.config.Stages")
    stages.check()
    runs = stages.resolve()
    _check_names(runs)
    console = console or Console(quiet=not hosts.is_first())
    for number, (name, run) in enumerate(runs.items(), start=1):
        console.print(f"stage {number} of {len(runs)}: {name}", highlight=False)
        job: Any = train if run.teacher is None else distill
        with beneath(f"runs.{name}"):
            job(run, splits=splits, console=console)
    if hosts.is_first():
        folders = [run.folder for run in runs.values()]
        reports.write_report(folders, stages.folder)
        console.print(reports.terminal_table(reports.collect(folders)))
        text = f"report: {stages.folder / 'report.md'}"
        console.print(text, highlight=False, soft_wrap=True)
    return stages.folder


def _check_names(runs: dict[str, Run]) -> None:
    """Refuse names and projectors in any stage before the first is trained."""
    earlier: dict[str, Run] = {}
    for name, run in runs.items():
        with beneath(f"runs.{name}"):
            setup.check_names(run, earlier=earlier)
        if not runlog.is_finished(run.folder):
            earlier[str(run.folder)] = run
