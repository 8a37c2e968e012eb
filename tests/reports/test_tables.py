"""The cells of the tables, worked out by hand."""

import io
import math
import pathlib

import pytest
from rich.console import Console

from kdjax.reports import RunRecord, report_markdown, results_table, terminal_table

SUMMARY = {
    "parameters": 12345,
    "seconds": 1234.56,
    "seeds": [3, 4, 5],
    "test": {
        # 90, 92, 94: mean 92, squares 4 + 0 + 4 over n - 1 = 2 give a spread of 2.
        "accuracy": [0.90, 0.92, 0.94],
        # 80, 80, 83: mean 81, squares 1 + 1 + 4 over 2 give sqrt(3) = 1.7321.
        "agreement": [0.80, 0.80, 0.83],
        # 0.1, 0.2, 0.3: mean 0.2, spread sqrt(0.02 / 2) = 0.1.
        "kl": [0.1, 0.2, 0.3],
    },
    "command": "kdjax distill --name a",
    "machine": "a box",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
}
FIGURES = {"x/curves.png": "Curves"}
FULL = "12,345 | 92.00 ± 2.00 | 81.00 ± 1.73 | 0.2000 ± 0.1000 | 1,234.6"


def record(name="a", summary=None, steps=300, metrics=()):
    config = {"name": name, "steps": steps, "data": {"test": "test[:9]"}}
    return RunRecord(name, pathlib.Path("runs", name), config, list(metrics), summary)


def rows(records):
    return results_table(records).splitlines()[2:]


def terminal(records, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(records))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_full_row_and_the_heads():
    assert results_table([record(summary=SUMMARY)]) == (
        "| run | parameters | accuracy (%) | agreement with the teacher (%) "
        "| held-out KL (nats) | seconds |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        f"| a | {FULL} |\n"
    )


def test_one_seed_has_no_spread():
    test = {"accuracy": [0.98765], "agreement": [1.0], "kl": [0.00014]}
    summary = {**SUMMARY, "test": test}
    expected = "| a | 12,345 | 98.77 | 100.00 | 0.0001 | 1,234.6 |"
    assert rows([record(summary=summary)]) == [expected]


def test_what_is_absent_is_a_dash():
    alone = record("teacher", {**SUMMARY, "test": {"accuracy": [0.5, 0.5]}})
    started = record("b", metrics=[{"kind": "train", "step": 20}])
    assert rows([alone, started, record("c", {})]) == [
        "| teacher | 12,345 | 50.00 ± 0.00 | – | – | 1,234.6 |",
        "| b (unfinished at step 20 of 300) | – | – | – | – | – |",
        "| c | – | – | – | – | – |",
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_seed_is_shown_and_never_averaged_away(bad):
    summary = {**SUMMARY, "test": {"accuracy": [0.9, 0.9], "kl": [0.1, bad]}}
    (row,) = rows([record(summary=summary)])
    assert "| 90.00 ± 0.00 | – | not finite (1 of 2 seeds) |" in row


def test_a_name_cannot_break_the_table():
    (row,) = rows([record("a|b\nc", SUMMARY)])
    assert row == f"| a\\|b c | {FULL} |"


def test_terminal_table_has_the_same_cells():
    text = terminal([record(summary=SUMMARY), record("b")])
    assert all(cell in text for cell in FULL.split(" | "))
    (row,) = [line for line in text.splitlines() if line.startswith("b ")]
    assert row.split() == ["b", "(unfinished", *"–––––"]


def test_terminal_table_breaks_names_and_no_numbers():
    text = terminal([record("a_run_with_a_very_long_name", SUMMARY)])
    assert all(cell in text for cell in FULL.split(" | "))
    assert max(map(len, text.splitlines())) <= 80


def test_terminal_table_takes_names_as_they_are():
    assert "[red]a[/]" in terminal([record("[red]a[/]", SUMMARY)], width=120)


def test_report_says_how_the_numbers_came_about():
    text = report_markdown([record(summary=SUMMARY), record("b")], FIGURES)
    assert text.startswith("# Results: a, b\n\n```bash\nkdjax distill --name a\n```\n")
    for part in (
        "- Machine: a box\n- Versions: jax 0.10.2, flax 0.12.8\n- Seeds: 3, 4, 5\n",
        "test split (`test[:9]`)",
        "sample standard deviation over the seeds (n - 1)",
        "KL(teacher || student) in nats at temperature 1",
        f"| a | {FULL} |",
        "| b (unfinished at step 0 of 300) | – |",
        "![Curves](x/curves.png)\n",
    ):
        assert part in text


def test_report_says_which_run_had_which_seeds():
    one = {**SUMMARY, "seeds": [0], "machine": "other", "command": "kdjax train"}
    records = [record("a", SUMMARY), record("b", SUMMARY), record("c", one)]
    text = report_markdown(records, FIGURES)
    assert "- Seeds: 3, 4, 5 (a, b); 0 (c)\n" in text
    assert "- Machine: a box (a, b); other (c)\n" in text
    assert "- Versions: jax 0.10.2, flax 0.12.8\n" in text
    assert "```bash\nkdjax distill --name a\nkdjax train\n```" in text


def test_report_counts_the_runs_of_what_most_had():
    other = {**SUMMARY, "machine": "other"}
    records = [*(record(name, SUMMARY) for name in "abcde"), record("f", other)]
    text = report_markdown(records, FIGURES)
    assert "- Machine: a box (5 runs); other (f)\n" in text


def test_report_of_unfinished_runs_has_no_empty_headings():
    text = report_markdown([record()], FIGURES)
    assert "```" not in text
    assert "Machine" not in text
    assert "\n\n\n" not in text


def test_report_counts_the_images_that_were_left_out():
    some = {**SUMMARY, "left_out": {"train": 3, "test": 1}}
    text = report_markdown([record(summary=some)], FIGURES)
    want = "3 of the train split and 1 of the test split, images that cannot be decoded"
    assert f"- Left out: {want}\n" in text
    none = {**SUMMARY, "left_out": {}}
    assert "Left out" not in report_markdown([record(summary=none)], FIGURES)


def test_report_says_that_runs_were_measured_differently():
    images = "The runs were measured on different test images: `data` (a); `data` (b)."
    teachers = "Agreement and KL are with different teachers."

    def text(*contents):
        records = [record(name, SUMMARY) for name in "abc"[: len(contents)]]
        for each, content in zip(records, contents, strict=True):
            each.config["content"] = content
        return report_markdown(records, {})

    one, two = {"test": "1", "teacher": "2"}, {"test": "1", "teacher": "3"}
    for silent in (text(one, one), text(one, {"test": "1"}), text(one, {})):
        assert images not in silent and teachers not in silent
    assert teachers in text(one, one, two) and images not in text(one, two)
    other = text(one, {"test": "4", "teacher": "2"})
    assert images in other and teachers not in other
