"""Experiments whose results are checked in: one claim a file."""
