"""Verdicts of a sweep, worked out by hand, and the report of half a sweep."""

import dataclasses
import json
import math
import re

import pytest

from kdjax.config import ConfigError
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.experiments import (
    Experiment,
    Hypothesis,
    above,
    load_experiment,
    reporting,
    widening,
)
from kdjax.experiments.judging import judge
from kdjax.experiments.records import finished_runs
from kdjax.experiments.reporting import results_by_duration, verdict_table
from kdjax.experiments.results import select, values
from kdjax.presets import digits
from kdjax.reports import collect

FILE = """
from kdjax.experiments import Experiment, Hypothesis, above
from kdjax.presets import digits, digits_teacher


def a(scale="tiny"):
    return digits(steps=10)


def b(scale="tiny"):
    return digits(steps=10)


EXPERIMENT = Experiment(
    claim="b is above a",
    variants={"x/a": a, "x/b": b},
    durations={"tiny": (1, 4)},
    hypotheses=(above("b over a", "x/b", "x/a", paper="+1"),),
)
"""


def write_sweep_report(root, experiment=None):
    """The report of the experiment in the sweep's file, or of a changed one."""
    if experiment is None:
        about = json.loads((root / "sweep.json").read_text())
        experiment = load_experiment(about["experiment"])
    return reporting.write_sweep_report(root, experiment)


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
    verdict = judge(experiment.hypotheses[0], records, (1, 4))
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
    assert judge(experiment.hypotheses[0], records, (1, 4)).word == word


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
    assert judge(experiment.hypotheses[0], records, (1, 4)).word == "not run"
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
        Hypothesis("last", ((1.0, "x/b", -1), (-1.0, "x/b", -2))),
        above("shortest", "x/b", "x/a", at=0),
        above("last but one", "x/b", "x/a", at=-2),
    )
    experiment = dataclasses.replace(experiment, durations=times, hypotheses=expected)
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


def test_the_best_on_validation_stands_for_all(tmp_path):
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "small.py"
    group = 'hypotheses=(above("up", "best", "best"),),'
    group += 'select_on_validation={"best": ("x/a", "x/b")},\n)'
    file.write_text(re.sub(r"hypotheses=.*\n\)", group, FILE))
    experiment = load_experiment(file)
    assert experiment.reported == ("best",)
    root = tmp_path / "sweep"
    write_sweep(root, experiment, {})
    # The last evaluation counts: there x/b is ahead, on the test split it is behind.
    seen = {"a": [(5, [0.9, 0.9]), (10, [0.6, 0.6])], "b": [(10, [0.5, 0.9])]}
    test = {"a": [0.91, 0.91], "b": [0.4, 0.6]}
    for name, curve in seen.items():
        write_run(root / f"x-{name}-x4", test[name], validation=curve)
    write_run(root / "x-a-x1", [0.3, 0.3], validation=[(10, [0.2, 0.2])])
    runs = select(experiment, found(tmp_path, experiment), "tiny")
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
    chance = Hypothesis("above chance", ((1.0, "x/a", -1),), threshold=0.4)
    verdict = judge(chance, found(tmp_path, experiment), (1, 4))
    assert verdict.mean == pytest.approx(0.3)
    assert verdict.error == pytest.approx(0.2 / math.sqrt(3))


def valid(**change):
    def a(scale):
        return digits(steps=10)

    fields = {
        "claim": "b is above a",
        "variants": {"x/a": a, "x/b": a},
        "durations": {"tiny": (1, 4)},
        "hypotheses": (above("b over a", "x/b", "x/a", paper="+1"),),
    }
    return Experiment(**{**fields, **change})


def sums(terms, **change):
    return (Hypothesis("e", terms, **change),)


def run(scale):
    return digits(steps=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claim": 5}, "claim: expected a sentence, got 5"),
        ({"variants": [run]}, "variants: expected a dict of names and functions"),
        ({"variants": {}}, "variants: expected at least one"),
        (
            {"variants": {"x/a": run, "x/b": run, "x a": run}},
            r"variants\['x a'\]: .* variants\['x/a'\] has x-a-x1",
        ),
        ({"durations": {}}, "durations: expected a dict of scales"),
        ({"durations": {5: (1,)}}, "durations: expected names of scales, got 5"),
        ({"durations": {"tiny": 1}}, r"durations\['tiny'\]: expected rising whole"),
        ({"durations": {"tiny": (4, 1)}}, r"durations\['tiny'\]: expected rising"),
        ({"pretrain": {"../up": run}}, r"pretrain\['../up'\]: expected a folder's n"),
        ({"pretrain": {"teacher-1": run}}, r"pretrain\['teacher-1'\]: expected a fo"),
        ({"pretrain": {"stage-1": run}}, r"pretrain\['stage-1'\]: expected a folder"),
        ({"pretrain": {"compiled": run}}, "expected a folder of its own, the sweep h"),
        ({"pretrain": {"results.png": run}}, r"pretrain\['results.png'\]: expected "),
        ({"pretrain": {"x-targets": run}}, r"teacher-N, stage-N or NAME-"),
        (
            {"select_on_validation": {"c": ("x/c",)}},
            r"select_on_validation\['c'\]: did you mean 'x/b'\? expected one of",
        ),
        ({"select_on_validation": {"c": "x/a"}}, r"\['c'\]: expected some variants"),
        ({"select_on_validation": {"c": ()}}, r"\['c'\]: expected some variants"),
        (
            {"select_on_validation": {"x/a": ("x/b",)}},
            "expected a name that no variant has",
        ),
        (
            {"hypotheses": above("one", "x/b", "x/a")},
            "hypotheses: expected a tuple of Hypothesis",
        ),
        (
            {"hypotheses": (above("b", "x/c", "x/a"),)},
            r"hypotheses\['b'\]: did you mean 'x/b'\? expected one of .*'x/c'",
        ),
        (
            {"hypotheses": (above("b", "x/b", "x/a", at=2),)},
            "expected the index of a duration, got 2",
        ),
        (
            {"hypotheses": (above("b", "x/b", "x/a", metric="kll"),)},
            r"hypotheses\['b'\].metric: did you mean 'kl'\? expected one of",
        ),
        (
            {"hypotheses": (above("b", "x/b", "x/a", paper=1.0),)},
            r"hypotheses\['b'\].paper: expected a text, got 1.0",
        ),
        (
            {"hypotheses": (above(3, "x/b", "x/a"),)},
            r"hypotheses\[3\].claim: expected a text, got 3",
        ),
        (
            {"hypotheses": (above("b", "x/b", "x/a", at=0.5),)},
            r"\].terms: expected some \(factor, variant, index",
        ),
        ({"hypotheses": sums((("x/a", 1),))}, r"\].terms: expected some \(factor, va"),
        ({"hypotheses": sums((("1", "x/a", 1),))}, r"\].terms: expected some \(fact"),
        ({"hypotheses": sums(())}, r"\].terms: expected some \(factor"),
        (
            {"hypotheses": sums(((1, "x/a", 1),), threshold="0")},
            r"\].threshold: expected a number, got '0'",
        ),
        ({"highlight": {"x/c": "c"}}, "highlight: did you mean 'x/b'?"),
        (
            {"highlight": dict.fromkeys("abcde", "")},
            "highlight: expected a dict of up to 4 variants and their words",
        ),
        ({"grid": ("optim.lr",)}, "grid: expected two fields of Run"),
    ],
)
def test_invalid_fields_are_named(change, message):
    valid()
    with pytest.raises(ConfigError, match=message):
        valid(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("EXPERIMENT =", "EXPERMENT ="),
            "experiment: did you mean 'EXPERMENT'\\? expected EXPERIMENT = Experiment"
            ".*small.py, got none",
        ),
        (("EXPERIMENT =", "mine ="), "experiment: did you mean 'mine'?"),
        (
            ("EXPERIMENT = Experiment(", "EXPERIMENT = dict("),
            "EXPERIMENT: expected an Experiment in .*small.py, got dict$",
        ),
        (("import digits", "import digets"), "experiment: cannot import .*small.py"),
        (("claim=", "clam="), "cannot import .*unexpected keyword argument 'clam'"),
    ],
)
def test_files_without_an_experiment_say_so(tmp_path, change, message):
    file = tmp_path / "small.py"
    assert change[0] in FILE
    file.write_text(FILE.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_experiment(file)


def test_a_function_may_return_the_experiment(tmp_path):
    file = tmp_path / "small.py"
    function = "def EXPERIMENT():\n    return Experiment("
    file.write_text(FILE.replace("EXPERIMENT = Experiment(", function))
    assert load_experiment(file).claim == "b is above a"
    assert load_experiment(file).path == file


def test_scales_are_free_text():
    experiment = valid(durations={"mine": (2,)})
    assert experiment.times("mine") == (2,)
    assert experiment.run("x/a", "mine", 2).steps == 20
    with pytest.raises(ConfigError) as error:
        experiment.times("mime")
    text = "scale: did you mean 'mine'? expected one of ['mine'], got 'mime'"
    assert str(error.value) == text


def test_a_variant_that_cannot_be_run_is_named():
    experiment = valid(variants={"x/a": run, "x/b": lambda scale: digits(steps="2")})
    assert experiment.run("x/a", "tiny", 4).steps == 40
    with pytest.raises(ConfigError, match=r"variants\['x/b'\].steps: expected .*'2'"):
        experiment.run("x/b", "tiny", 4)


def test_columns_name_steps_only_where_they_are_all_the_same(tmp_path, experiment):
    table = results_by_duration(experiment, {}, "tiny", "accuracy")
    assert table.startswith("| variant | x1 (10 steps) | x4 (40 steps) |")
    variants = {**experiment.variants, "x/b": lambda scale: digits(steps=20)}
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
