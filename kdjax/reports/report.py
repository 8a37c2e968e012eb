"""The report of some runs: a Markdown file with its figures."""

import pathlib
from collections.abc import Iterable

from kdjax.config import require_local
from kdjax.core import runlog
from kdjax.reports.collect import collect
from kdjax.reports.tables import report_markdown


def write_report(
    paths: Iterable[runlog.Path] | runlog.Path, out_dir: runlog.Path
) -> str:
    """Write `report.md` of the runs into a folder, and return the Markdown.

    With `curves.png`, their accuracy against steps, and `kl.png` where there are
    teachers.

    Raises:
        RunFolderError: no path is given, a path is no run folder, or `out_dir` cannot
            be written.
    """
    # Every training imports this module, and matplotlib takes as long as JAX to import.
    from kdjax.reports.plots import plot_curves

    records = collect(paths)
    if not records:
        raise runlog.RunFolderError("a report needs at least one run folder, got none")
    require_local(out_dir, "out")
    folder = pathlib.Path(out_dir)
    runlog.make_writable(folder)
    figures = {"curves.png": "Validation accuracy against steps"}
    plot_curves(records, folder / "curves.png")
    if plot_curves(records, folder / "kl.png", "kl"):
        figures["kl.png"] = "Validation KL against steps"
    text = report_markdown(records, figures)
    runlog.write_bytes(folder / "report.md", text.encode())
    return text
