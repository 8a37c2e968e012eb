"""Tables, figures and reports of run folders; imports no training code."""

from kdjax.reports.collect import RunRecord, collect
from kdjax.reports.report import write_report
from kdjax.reports.tables import report_markdown, results_table, terminal_table

__all__ = [
    "RunRecord",
    "collect",
    "report_markdown",
    "results_table",
    "terminal_table",
    "write_report",
]
