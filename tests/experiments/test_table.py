"""The table of methods: that of the README, from reports that are there."""

import pathlib

import pytest

from experiments.methods import table
from kdjax.config import load_function
from kdjax.experiments import load_experiment
from kdjax.strategies.registry import STRATEGIES

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_of_the_page_is_that_of_the_reports():
    page = (ROOT / "kdjax/strategies/README.md").read_text()
    assert f"\n{table.table()}\n" in page, "run python -m experiments.methods.table"


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.method)
def test_a_row_names_what_there_is(row):
    """Its strategy or stages, and a hypothesis of its experiment."""
    words = row.command.split()
    if "--strategy.function" in words:
        assert words[words.index("--strategy.function") + 1] in STRATEGIES
    if "--config" in words:
        load_function(str(ROOT / words[words.index("--config") + 1]), "config")
    if row.report:
        experiment = load_experiment(ROOT / "experiments" / f"{row.report}.py")
        assert row.claim in [h.claim for h in experiment.hypotheses]


def test_methods_have_one_row_each():
    names = [row.method for row in table.ROWS]
    assert len(names) == len(set(names))
    commands = [row.command for row in table.ROWS]
    assert len(commands) == len(set(commands))
