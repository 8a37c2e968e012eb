"""Trained students outside of their runs: in Python, and as files of other runtimes."""

from kdjax.export.formats import FORMATS, write_export
from kdjax.export.student import Student

__all__ = ["FORMATS", "Student", "write_export"]
