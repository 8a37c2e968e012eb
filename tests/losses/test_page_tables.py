"""Tables in the READMEs of losses and targets: names exist, rows are complete."""

import pathlib
import re

import pytest

import kdjax
from kdjax import losses, targets

ROOT = pathlib.Path(kdjax.__file__).parent
PAGES = {
    name: (ROOT / name / "README.md").read_text() for name in ("losses", "targets")
}
pages = pytest.mark.parametrize("name", PAGES)


@pages
def test_names_in_tables_exist(name):
    known = {*losses.__all__, *targets.__all__}
    rows = [line for line in PAGES[name].splitlines() if line.startswith("|")]
    first = {n for row in rows for n in re.findall(r"^\| `(\w+)` \|", row)}
    assert first and first <= known
    calls = set(
        re.findall(r"`(?:losses\.|targets\.)?([a-z]+_[a-z_]+)`", "\n".join(rows))
    )
    assert {n for n in calls if n in {*losses.ALIASES}} == set()


def test_every_target_has_a_row_with_the_papers_of_its_docstring():
    for name in targets.__all__:
        row = re.search(rf"^\| `{name}` \|.*$", PAGES["targets"], flags=re.M)
        assert row, name
        for paper in re.findall(r"\d{4}\.\d{4,5}", row[0]):
            assert paper in getattr(targets, name).__doc__, (name, paper)


def test_the_table_of_goals_names_losses():
    table = PAGES["losses"].split("## Which loss for which goal")[1].split("\n\n")[1]
    named = re.findall(r"`(\w+)`", table)
    assert len(named) > 20 and set(named) <= set(losses.REGISTRY)


def test_every_goal_of_the_table_is_found_by_its_words():
    table = PAGES["losses"].split("## Which loss for which goal")[1].split("\n\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    for goal, tried in rows:
        found = [entry.name for entry in losses.find(goal)]
        assert re.findall(r"`(\w+)`", tried)[0] in found, (goal, found)
