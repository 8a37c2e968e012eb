"""Verdicts of a sweep, worked out by hand, and the report of half a sweep."""

import dataclasses
import json
import math

import numpy as np
import pytest

from kdjax.config import (
    ConfigError,
    Expectation,
    Run,
    above,
    load_experiment,
    widening,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.reports import collect, sweep_figures, write_sweep_report
from kdjax.reports.sweep_results import choose, epochs, finished_runs, values
from kdjax.reports.sweeps import judge, results_by_duration, verdict_table

FILE = """
from kdjax.config import Run, above

CLAIM = "b is above a"
DURATIONS = {"tiny": (1, 4)}


def a(scale="tiny"):
    return Run(steps=10)


def b(scale="tiny"):
    return Run(steps=10)


VARIANTS = {"x/a": a, "x/b": b}
EXPECTED = (above("b over a", "x/b", "x/a", paper="+1"),)
"""


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "files" / "small.py"
    file.parent.mkdir()
    file.write_text(FILE)
    return load_experiment(file)


def write_run(folder, accuracy, steps=10, losses=(), validation=(), **metrics):
    folder.mkdir(parents=True)
    config = {"name": folder.name, "steps": steps, "batch": 50}
    runlog.write_json(folder / "config.json", config)
    for step, loss in losses:
        line = {"kind": "train", "step": step, "loss": loss}
        runlog.append_metrics(folder, line)
    for step, value in validation:
        line = {"kind": "validation", "step": step, "accuracy": value}
        runlog.append_metrics(folder, line)
    summary = {"examples": 200, "test": {"accuracy": accuracy, **metrics}}
    runlog.write_json(folder / "summary.json", summary)


def write_sweep(root, experiment, runs):
    root.mkdir()
    about = {"experiment": str(experiment.path), "scale": "tiny", "seeds": 3}
    (root / "sweep.json").write_text(json.dumps(about))
    for name, accuracy in runs.items():
        write_run(root / name, accuracy)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scale": None}, "sweep.json: scale: expected str, got None"),
        ({"seeds": "5"}, "sweep.json: seeds: expected int, got '5'"),
        ({"folder": 5}, "sweep.json: folder: expected str, got 5"),
    ],
)
def test_a_folder_that_lacks_what_it_is_of_says_so(tmp_path, experiment, changed, said):
    write_sweep(tmp_path / "sweep", experiment, {})
    file = tmp_path / "sweep/sweep.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(RunFolderError, match=said):
        write_sweep_report(tmp_path / "sweep")


def found(tmp_path, experiment):
    return finished_runs(experiment, tmp_path / "sweep", "tiny")


def test_verdict_is_a_paired_test(tmp_path, experiment):
    # Differences 0.01, 0.02, 0.03: mean 0.02, error 0.01 / sqrt(3), t = 3.4641, two
    # degrees of freedom, for which p = 1 - t / sqrt(t^2 + 2) = 0.0742.
    runs = {"x-a-x4": [0.5, 0.7, 0.9], "x-b-x4": [0.51, 0.72, 0.93]}
    write_sweep(tmp_path / "sweep", experiment, runs)
    records = found(tmp_path, experiment)
    verdict = judge(experiment.expected[0], records, (1, 4))
    assert verdict.seeds == 3 and verdict.word == "undecided"
    assert verdict.mean == pytest.approx(0.02)
    assert verdict.error == pytest.approx(0.01 / math.sqrt(3))
    assert verdict.p == pytest.approx(1 - math.sqrt(12 / 14))
    row = verdict_table(experiment, records, "tiny").splitlines()[2]
    assert row == "| b over a | +1 | +2.00 ± 0.58 points | 3 | 0.074 | undecided |"


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [
        # Differences 0.1, 0.11, 0.12: t = 0.11 / (0.01 / sqrt(3)) = 19, p = 0.003.
        ([0.6, 0.81, 1.02], "holds"),
        ([0.4, 0.59, 0.78], "reversed"),
        ([0.5, 0.7, 0.9], "undecided"),
        # The same in all seeds: no variance to judge by, whatever is left of rounding.
        ([0.6, 0.8, 1.0], "undecided"),
    ],
)
def test_words(tmp_path, experiment, accuracy, word):
    runs = {"x-a-x4": [0.5, 0.7, 0.9], "x-b-x4": accuracy}
    write_sweep(tmp_path / "sweep", experiment, runs)
    records = found(tmp_path, experiment)
    assert judge(experiment.expected[0], records, (1, 4)).word == word


def test_a_widening_lead_is_a_difference_of_differences(tmp_path, experiment):
    runs = {
        "x-a-x1": [0.5, 0.6],
        "x-b-x1": [0.4, 0.7],
        "x-a-x4": [0.5, 0.5],
        "x-b-x4": [0.8, 0.9],
    }
    write_sweep(tmp_path / "sweep", experiment, runs)
    records = found(tmp_path, experiment)
    verdict = judge(widening("lead", "x/b", "x/a"), records, (1, 4))
    # (0.3 + 0.1, 0.4 - 0.1)
    assert verdict.mean == pytest.approx(0.35)
    assert verdict.error == pytest.approx(0.05)


def test_what_is_not_run_has_no_verdict(tmp_path, experiment):
    write_sweep(tmp_path / "sweep", experiment, {"x-a-x4": [0.5, 0.6]})
    records = found(tmp_path, experiment)
    assert judge(experiment.expected[0], records, (1, 4)).word == "not run"
    # One seed says nothing of chance.
    runs = {"x-b-x4": [0.9]}
    for name, accuracy in runs.items():
        write_run(tmp_path / "sweep" / name, accuracy)
    one = above("one", "x/b", "x/b")
    assert judge(one, found(tmp_path, experiment), (1, 4)).word == "undecided"
    text = write_sweep_report(tmp_path / "sweep")
    assert "2 of 4 runs are finished. Not finished: " in text
    assert "| x/a | – | 55.00 ± 5.00 |" in text
    assert "| x/b | – | 90.00 |" in text
    assert (tmp_path / "sweep" / "results.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("finished", "index", "said"),
    [
        # The longest that both have; of the lead that grows, from the shortest to it.
        ([(1, 1), (4, 4), (16, 16)], 0, ("+20.00 ", " (so far: x16)")),
        ([(1, 1), (4, 4), (16, 16)], 1, ("+15.00 ", " (so far: x1, x16)")),
        ([(1, 1), (4, 4), (16, 16)], 2, ("+10.00 ", " (so far: x4, x16)")),
        ([(1, 1), (4, 4), (16, None)], 0, ("+10.00 ", " (so far: x4)")),
        # All that is asked for is there, whatever else is not.
        ([(64, 64)], 0, ("+30.00 ", "")),
        ([(1, 1), (64, 64)], 1, ("+25.00 ", "")),
        # The shortest is not the longest of anything, and two are needed for a growth.
        ([(1, 1)], 0, None),
        ([(4, 4), (16, 16)], 1, None),
        ([(1, 1), (4, 4)], 3, ("+5.00 ", "")),
        ([(4, 4), (16, 16)], 3, None),
        # Nor is it the last but one of a part.
        ([(1, 1), (4, 4), (16, 16)], 4, ("+10.00 ", " (so far: x4)")),
        ([(1, 1), (4, 4)], 4, None),
    ],
)
def test_a_part_is_judged_as_far_as_it_is(tmp_path, experiment, finished, index, said):
    times = {"tiny": (1, 4, 16, 64)}
    expected = (
        above("longest", "x/b", "x/a"),
        widening("growth", "x/b", "x/a"),
        Expectation("last", ((1.0, "x/b", -1), (-1.0, "x/b", -2))),
        above("shortest", "x/b", "x/a", at=0),
        above("last but one", "x/b", "x/a", at=-2),
    )
    experiment = dataclasses.replace(experiment, durations=times, expected=expected)
    gains = {1: 0.05, 4: 0.1, 16: 0.2, 64: 0.3}
    runs = {}
    for a, b in finished:
        runs |= {f"x-a-x{a}": [0.1, 0.2]} if a else {}
        runs |= {f"x-b-x{b}": [0.1 + gains[b], 0.2 + gains[b]]} if b else {}
    write_sweep(tmp_path / "sweep", experiment, runs)
    records = found(tmp_path, experiment)
    row = verdict_table(experiment, records, "tiny").splitlines()[2 + index]
    claim = expected[index].claim
    if said is None:
        assert row.startswith(f"| {claim} |") and row.endswith("| 0 | – | not run |")
    else:
        assert row.startswith(f"| {claim}{said[1]} | – | {said[0]}")


def test_training_loss_is_of_the_last_tenth(tmp_path, experiment):
    losses = [(80, [9.0, 9.0]), (95, [1.0, 2.0]), (100, [3.0, 2.0])]
    write_run(tmp_path / "sweep" / "x-a-x1", [0.5, 0.5], 100, losses)
    run = found(tmp_path, experiment)["x/a", 1]
    assert values(run, "train_loss") == [2.0, 2.0]
    assert values(run, "kl") == []


CHOICE = """
CHOICES = {"best": ("x/a", "x/b")}
EXPECTED = (above("up", "best", "best"),)
"""


def test_the_best_on_validation_stands_for_all(tmp_path):
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "small.py"
    file.write_text(FILE + CHOICE)
    experiment = load_experiment(file)
    assert experiment.shown == ("best",)
    root = tmp_path / "sweep"
    write_sweep(root, experiment, {})
    # The last evaluation counts: there x/b is ahead, on the test split it is behind.
    seen = {"a": [(5, [0.9, 0.9]), (10, [0.6, 0.6])], "b": [(10, [0.5, 0.9])]}
    test = {"a": [0.91, 0.91], "b": [0.4, 0.6]}
    for name, curve in seen.items():
        write_run(root / f"x-{name}-x4", test[name], validation=curve)
    write_run(root / "x-a-x1", [0.3, 0.3], validation=[(10, [0.2, 0.2])])
    runs = choose(experiment, found(tmp_path, experiment), "tiny")
    assert {key: run.path.name for key, run in runs.items()} == {
        ("best", 4): "x-b-x4",
        ("best", 1): "x-a-x1",
    }
    text = write_sweep_report(root)
    assert "| best | 30.00 ± 0.00 | 50.00 ± 10.00 |" in text
    assert "| x/a | **20.00 ± 0.00** | 60.00 ± 0.00 |" in text
    assert "| x/b | – | **70.00 ± 20.00** |" in text
    assert "Not finished: x/b x1. Claims about the longest, and those before it" in text
    assert "What is chosen from several is chosen from those that are" in text
    # What was not chosen has no test result, here 91 %.
    assert "91.00" not in text


def test_an_expectation_can_be_above_a_number(tmp_path, experiment):
    write_sweep(tmp_path / "sweep", experiment, {"x-a-x4": [0.5, 0.7, 0.9]})
    chance = Expectation("above chance", ((1.0, "x/a", -1),), than=0.4)
    verdict = judge(chance, found(tmp_path, experiment), (1, 4))
    assert verdict.mean == pytest.approx(0.3)
    assert verdict.error == pytest.approx(0.2 / math.sqrt(3))


def test_figures_are_over_epochs_where_runs_say_how_many_images_they_had(
    tmp_path, experiment, monkeypatch
):
    root, labels = tmp_path / "sweep", []
    write_sweep(root, experiment, {})
    curves = {"losses": [(5, [1.0]), (10, [0.5])], "validation": [(10, [0.5])]}
    write_run(root / "x-a-x1", [0.5], kl=[0.1], agreement=[0.7], **curves)
    run = found(tmp_path, experiment)["x/a", 1]
    # 50 of 200 images an update.
    assert epochs(run) == 0.25
    dress = sweep_figures._dress
    monkeypatch.setattr(
        sweep_figures,
        "_dress",
        lambda axis, *words: (labels.append((axis, words[1])), dress(axis, *words)),
    )
    assert "(relations.png)" in write_sweep_report(root)
    first = labels[0][0].get_lines()[0].get_xdata()
    assert labels[0][1] == "epochs (log scale)" and list(first) == [2.5]
    names = ("results", "curves", "relations")
    for name in names:
        assert (root / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    # Results of four metrics, courses of accuracy and loss, two relations.
    assert len(labels) == 4 + 2 + 2
    for axis, _ in labels:
        (legend,) = axis.figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["x/a"]


def test_results_of_one_duration_are_a_row_a_variant(tmp_path, monkeypatch):
    file = tmp_path / "small.py"
    file.write_text(FILE.replace('"tiny": (1, 4)', '"tiny": (4,)'))
    experiment, axes = load_experiment(file), []
    write_sweep(tmp_path / "sweep", experiment, {"x-a-x4": [0.2, 0.4], "x-b-x4": [0.5]})
    dress = sweep_figures._dress
    monkeypatch.setattr(
        sweep_figures, "_dress", lambda axis, *w: (axes.append(axis), dress(axis, *w))
    )
    assert "![Results of each variant](results.png)" in write_sweep_report(
        tmp_path / "sweep"
    )
    (points,) = [line for line in axes[0].get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xydata(), [[30, 0], [50, 1]])
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["x/a", "x/b"]
    (bars,) = axes[0].collections
    # 0.2 and 0.4: an error of 0.1; of one seed none.
    spans = [segment[:, 0].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(spans, [[20, 40], [50, 50]])


def term(text):
    return (
        f"from kdjax.config import Expectation\nEXPECTED = (Expectation('e', {text}),)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("CLAIM", "NAME"), "expected CLAIM in"),
        (('"x/b", "x/a"', '"x/c", "x/a"'), "expected one of x/a, x/b, got 'x/c'"),
        (('paper="+1"', "at=2"), "expected the index of a duration, got 2"),
        (("import Run", "import Ran"), "cannot import"),
        ('CHOICES = {"c": ("x/c",)}', r"CHOICES\['c'\]: expected one of x/a"),
        ('CHOICES = {"c": "x/a"}', r"CHOICES\['c'\]: expected some variants"),
        ('CHOICES = {"c": ()}', r"CHOICES\['c'\]: expected some variants"),
        ('CHOICES = {"x/a": ("x/b",)}', "expected a name that no variant has"),
        ('VARIANTS["x a"] = a', r"\['x a'\]: .* VARIANTS\['x/a'\] has x-a-x1"),
        ("VARIANTS = [a, b]", "VARIANTS: expected a dict of names and functions"),
        ("VARIANTS = {}", "VARIANTS: expected at least one"),
        ('FIRST = {"../up": a}', r"FIRST\['../up'\]: expected the name of a fol"),
        ('FIRST = {"teacher-1": a}', r"FIRST\['teacher-1'\]: expected the name"),
        ('FIRST = {"compiled": a}', "expected a folder of its own, the sweep has"),
        ('FIRST = {"results.png": a}', r"FIRST\['results.png'\]: expected the name"),
        ('FIRST = {"x-x1-targets": a}', r"not .NAME, NAME.END, teacher-N nor NAME-tar"),
        ('DURATIONS = {"tiny": 1}', r"DURATIONS\['tiny'\]: expected whole numbers"),
        ('DURATIONS = {"tiny": (4, 1)}', r"DURATIONS\['tiny'\]: .* that rise"),
        ("DURATIONS = {}", "DURATIONS: expected a dict of scales"),
        ("EXPECTED = EXPECTED[0]", "EXPECTED: expected a tuple of Expectation"),
        (
            ('paper="+1"', 'metric="kll"'),
            r"EXPECTED\['b over a'\].metric: expected one",
        ),
        ("CLAIM = 5", "CLAIM: expected a sentence, got 5"),
        (('paper="+1"', "paper=1.0"), r"\].paper: expected a text, got 1.0"),
        (('"b over a"', "3"), r"EXPECTED\[3\].claim: expected a text, got 3"),
        (('paper="+1"', "at=0.5"), r"\].terms: expected some \(factor, variant, index"),
        (term('(("x/a", 1),)'), r"\].terms: expected some \(factor, variant, index"),
        (term('(("1", "x/a", 1),)'), r"\].terms: expected some \(factor"),
        (term("()"), r"\].terms: expected some \(factor"),
        (term('((1, "x/a", 1),), than="0"'), r"\].than: expected a number, got '0'"),
    ],
)
def test_files_that_are_no_experiments(tmp_path, change, message):
    file = tmp_path / "bad.py"
    added = isinstance(change, str)
    file.write_text(FILE + change if added else FILE.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_experiment(file)
    with pytest.raises(ConfigError, match="scale: expected one of"):
        file.write_text(FILE)
        load_experiment(file).times("huge")


def test_a_variant_that_cannot_be_run_is_named(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        FILE.replace(
            'def b(scale="tiny"):\n    return Run(steps=10)',
            'def b(scale="tiny"):\n    return Run(steps="2")',
        )
    )
    experiment = load_experiment(file)
    assert experiment.run("x/a", "tiny", 4).steps == 40
    with pytest.raises(ConfigError, match=r"VARIANTS\['x/b'\].steps: expected .*'2'"):
        experiment.run("x/b", "tiny", 4)


def test_columns_name_updates_only_where_they_are_all_the_same(tmp_path, experiment):
    table = results_by_duration(experiment, {}, "tiny", "accuracy")
    assert table.startswith("| variant | x1 (10 updates) | x4 (40 updates) |")
    variants = {**experiment.variants, "x/b": lambda scale: Run(steps=20)}
    other = dataclasses.replace(experiment, variants=variants)
    table = results_by_duration(other, {}, "tiny", "accuracy")
    assert table.startswith("| variant | x1 | x4 |")


@pytest.mark.parametrize("steps", [100, 160, 1000, 6400])
def test_a_line_at_nine_tenths_is_no_part_of_the_last_tenth(tmp_path, steps):
    """Of the ten lines the ninth, at nine tenths exactly, is about what was before."""
    losses = [(steps * i // 10, [float(i), 100.0 * i]) for i in range(1, 11)]
    write_run(tmp_path / "run", [0.5, 0.5], steps=steps, losses=losses)
    (record,) = collect([tmp_path / "run"])
    assert values(record, "train_loss") == [10.0, 1000.0]
    losses = [(steps * i // 20, [float(i)]) for i in range(1, 21)]
    write_run(tmp_path / "finer", [0.5], steps=steps, losses=losses)
    (record,) = collect([tmp_path / "finer"])
    assert values(record, "train_loss") == [19.5]
