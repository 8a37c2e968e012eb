"""The table of methods: that of the README, from reports that are there."""

import pathlib
import shlex

import pytest

from experiments.methods import table
from kdjax import setup
from kdjax.cli.options import parse_job
from kdjax.config import Stages
from kdjax.experiments import load_experiment

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_of_the_page_is_that_of_the_reports():
    page = (ROOT / "kdjax/strategies/README.md").read_text()
    assert f"\n{table.table()}\n" in page, "run python -m experiments.methods.table"


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.method)
def test_a_row_is_a_valid_command_and_a_claim_of_its_report(row, monkeypatch):
    """Every option is read and checked, but nothing is trained here."""
    monkeypatch.chdir(ROOT)
    program, command, *words = shlex.split(row.command)
    if program == "kdjax" and command != "sweep":
        job = parse_job(command, words)
        job.check()
        if not isinstance(job, Stages):
            setup.check_names(job)
    if row.report:
        experiment = load_experiment(ROOT / "experiments" / f"{row.report}.py")
        assert row.claim in [h.claim for h in experiment.hypotheses]


def test_methods_have_one_row_each():
    names = [row.method for row in table.ROWS]
    assert len(names) == len(set(names))
    commands = [row.command for row in table.ROWS]
    assert len(commands) == len(set(commands))
