"""Tables, figures and reports of run folders; imports no training code."""

from kdjax.reports.collect import RunRecord, collect
from kdjax.reports.plots import plot_curves
from kdjax.reports.report import write_report
from kdjax.reports.sweep_results import finished_runs, read_sweep
from kdjax.reports.sweeps import write_sweep_report
from kdjax.reports.tables import report_markdown, results_table, terminal_table

__all__ = [
    "RunRecord",
    "collect",
    "finished_runs",
    "plot_curves",
    "read_sweep",
    "report_markdown",
    "results_table",
    "terminal_table",
    "write_report",
    "write_sweep_report",
]
