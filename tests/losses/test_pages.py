"""READMEs of losses and targets: examples run, rows are complete, sentences short."""

import pathlib
import re

import numpy as np
import pytest

import kdjax
from kdjax import losses, targets

ROOT = pathlib.Path(kdjax.__file__).parent
PAGES = {
    name: (ROOT / name / "README.md").read_text() for name in ("losses", "targets")
}
pages = pytest.mark.parametrize("name", PAGES)


def sentences(text):
    """Numbers of words of the sentences of a page, without code, tables and titles."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    lines = [
        line for line in text.splitlines() if not re.match(r"( {4}|\||#|<!--)", line)
    ]
    text = re.sub(r"\n(?=- |\n)", "\n\n", "\n".join(lines))
    found = []
    for paragraph in text.split("\n\n"):
        prose = re.sub(r"`[^`]*`", "code", " ".join(paragraph.split())).lstrip("- ")
        found += [len(s.split()) for s in re.split(r"(?<=[.:!?])\**\s+", prose) if s]
    return np.array(found)


@pages
def test_sentences_are_short(name):
    words = sentences(PAGES[name])
    assert len(words) > 5
    assert np.percentile(words, 90) < 25
    assert words.max() <= 35


@pages
def test_examples_run(name):
    examples = re.findall(r"```python\n(.*?)```", PAGES[name], flags=re.S)
    assert examples
    for example in examples:
        exec(compile(example, f"{name}/README.md", "exec"), {})


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
