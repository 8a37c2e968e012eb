"""Running stages one after another, with one report over all."""

import dataclasses
import pathlib
from typing import Any

from rich.console import Console

from kdjax import reports, setup
from kdjax.config import Run, Stages, beneath, require_type
from kdjax.core import bucket, hosts, runlog
from kdjax.data.datasets import Splits
from kdjax.jobs.distilling import distill, train
from kdjax.train.progress import stage


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
    folder = bucket.open_folder(stages.folder)
    stages = dataclasses.replace(stages, workdir=str(folder))
    runs = stages.resolve()
    _check_names(runs)
    console = console or Console(quiet=not hosts.is_first())
    with stage(console, "checking that the stages fit together"):
        _check_networks(runs, splits)
    for number, (name, run) in enumerate(runs.items(), start=1):
        console.print(f"stage {number} of {len(runs)}: {name}", highlight=False)
        job: Any = train if run.teacher is None else distill
        with beneath(f"runs.{name}"):
            job(run, splits=splits, console=console)
    if hosts.is_first():
        folders = [run.folder for run in runs.values()]
        reports.write_report(folders, folder)
        console.print(reports.terminal_table(reports.collect(folders)))
        text = bucket.with_urls(f"report: {folder / 'report.md'}")
        console.print(text, highlight=False, soft_wrap=True)
        bucket.push(folder)
    return folder


def _check_names(runs: dict[str, Run]) -> None:
    """Refuse names and projectors in any stage before the first is trained."""
    earlier: dict[str, Run] = {}
    for name, run in runs.items():
        with beneath(f"runs.{name}"):
            setup.check_names(run, earlier=earlier)
        if not runlog.is_finished(run.folder):
            earlier[str(run.folder)] = run


def _check_networks(runs: dict[str, Run], splits: Splits | None) -> None:
    """Refuse networks of any later stage that do not fit, by their shapes.

    A stage with other data than the first is left to its training: an earlier stage may
    make them.
    """
    first, *later = runs.values()
    unfinished = {k: x for k, x in runs.items() if not runlog.is_finished(x.folder)}
    waiting = [x.name for x in later if x.name in unfinished and _same_data(x, first)]
    if not waiting:
        return
    own = setup.call_own(first) if splits is None else splits
    earlier: dict[str, Run] = {}
    for name, run in unfinished.items():
        run = setup.fill_models(run, earlier)
        if name in waiting:
            with beneath(f"runs.{name}"):
                setup.check_untrained(run, earlier, own)
        earlier[str(run.folder)] = run


def _same_data(run: Run, other: Run) -> bool:
    a, b = run.data, other.data
    return (a.name, a.data_dir) == (b.name, b.data_dir)
