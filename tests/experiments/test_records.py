"""Records of a sweep in one file: the report is the same as from its run folders."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.experiments import load_experiment, report_sweep
from kdjax.experiments.planning import plan
from kdjax.experiments.records import finished_runs, is_packed, read_sweep, unpack

ROOT = pathlib.Path(__file__).parents[2]
CHECKED_IN = sorted(ROOT.glob("experiments/*/results/*/records.jsonl"))
FILE = """
from kdjax.experiments import Experiment, above
from kdjax.presets import digits

EXPERIMENT = Experiment(
    claim="b is above a",
    variants={"a": lambda scale: digits(steps=10), "b": lambda scale: digits(steps=10)},
    durations={"mine": (1, 4)},
    hypotheses=(above("b over a", "b", "a", metric="kl"),),
)
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A sweep of two finished runs, one with a seed that diverged."""
    monkeypatch.chdir(tmp_path)
    file, root = tmp_path / "small.py", tmp_path / "runs/sweep"
    file.write_text(FILE)
    root.mkdir(parents=True)
    about = {"experiment": str(file), "scale": "mine", "seeds": 2, "folder": str(root)}
    runlog.write_json(root / "sweep.json", about)
    for task in plan(load_experiment(file), root, "mine", 2):
        if task.times == 4:
            kl = [0.1, np.nan] if task.variant == "a" else [0.5, 0.7]
            _write(task.run.folder, task.run, kl)
    return root


def _write(folder, run, kl):
    from kdjax.config import to_dict

    runlog.open_run(folder, to_dict(run))
    for step in (39, 40):
        loss = {"kind": "train", "step": step, "loss": [0.1, np.inf], "seconds": 0.5}
        runlog.append_metrics(folder, loss)
        validation = {"kind": "validation", "step": step, "accuracy": [0.1 * step, 0.3]}
        runlog.append_metrics(folder, validation)
    summary = {"test": {"accuracy": [0.125, 0.75], "kl": kl}, "seeds": [0, 1]}
    runlog.write_json(folder / "summary.json", {**summary, "name": run.name})


def test_records_make_the_report_of_the_folders(root, tmp_path):
    text = report_sweep(root)
    assert "| b over a | – | +nan nats | 2 | – | undecided |" in text
    lines = (root / "records.jsonl").read_text().splitlines()
    assert [json.loads(line).get("run") for line in lines] == [None, "a-x4", "b-x4"]
    # Relative to the working directory: no path of this machine.
    assert str(tmp_path) not in "\n".join(lines)
    assert json.loads(lines[0])["folder"] == "runs/sweep"
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.copy(root / "records.jsonl", packed)
    assert is_packed(packed) and not is_packed(root)
    before = (packed / "records.jsonl").read_bytes()
    assert report_sweep(packed) == text
    assert (packed / "report.md").read_text() == text
    (packed / "report.md").write_text("annotated")
    assert report_sweep(packed, tmp_path / "new/out") == text
    assert (packed / "report.md").read_text() == "annotated"
    names = sorted(path.name for path in (tmp_path / "new/out").iterdir())
    # No relation: a training loss is not finite.
    assert names == ["report.md", "results.png"]
    assert (packed / "records.jsonl").read_bytes() == before


def test_records_are_those_of_another_config(root, tmp_path):
    report_sweep(root)
    (root / "sweep.json").unlink()
    file = tmp_path / "small.py"
    file.write_text(
        FILE.replace(
            '"b": lambda scale: digits(steps=10)', '"b": lambda scale: digits(steps=9)'
        )
    )
    with pytest.raises(RunFolderError, match="steps: folder has 40, this run has 36"):
        report_sweep(root)


def test_a_sweep_continues_from_records(root, tmp_path):
    report_sweep(root)
    experiment = load_experiment(tmp_path / "small.py")
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.copy(root / "records.jsonl", packed)
    unpack(packed)
    about = {**read_sweep(root), "folder": str(packed)}
    runlog.write_json(packed / "sweep.json", about)
    runs = finished_runs(experiment, packed, "mine")
    others = finished_runs(experiment, root, "mine")
    assert runs.keys() == others.keys() == {("a", 4), ("b", 4)}
    for key, run in runs.items():
        other = others[key]
        assert run.config.pop("workdir") == f"runs/sweep/{run.path.name}"
        assert other.config.pop("workdir") == str(other.path)
        assert run.config == other.config
        np.testing.assert_equal(run.summary, other.summary)
        for kind in ("train", "validation"):
            pairs = zip(
                *([m for m in r.metrics if m["kind"] == kind] for r in (run, other)),
                strict=True,
            )
            for line, full in pairs:
                full.pop("seconds", None)
                np.testing.assert_equal(line, full)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line about a sweep first"),
        ("{", "cannot read .*records.jsonl"),
        ('{"scale": "mine"}', "experiment: expected str, got None"),
    ],
)
def test_files_that_are_no_records(tmp_path, text, message):
    (tmp_path / "records.jsonl").write_text(text)
    with pytest.raises(RunFolderError, match=message):
        report_sweep(tmp_path)


def test_a_line_that_is_no_run_is_named(root):
    report_sweep(root)
    file = root / "records.jsonl"
    (root / "sweep.json").unlink()
    file.write_text(file.read_text().replace('"config"', '"confg"', 1))
    with pytest.raises(RunFolderError, match="records.jsonl, line 2: not the record"):
        report_sweep(root)


@pytest.mark.parametrize("file", CHECKED_IN, ids=lambda f: f.parent.name)
def test_checked_in_records_make_the_checked_in_tables(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shutil.copy(file, tmp_path)
    text = report_sweep(tmp_path)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    checked_in = (file.parent / "report.md").read_text().splitlines()
    assert len(tables) > 20
    assert tables == [line for line in checked_in if line.startswith("|")]


def test_checked_in_results_are_small():
    """One figure a report, and every link of a report leads to a file."""
    reports = sorted(ROOT.glob("experiments/*/results/*/report.md"))
    assert len(reports) > 20
    for report in reports:
        figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", report.read_text())
        files = {path.name for path in report.parent.iterdir()}
        assert len(figures) == 1 and files <= {"report.md", "records.jsonl", *figures}
        assert (report.parent / figures[0]).stat().st_size < 60_000
        assert all(path.stat().st_size < 200_000 for path in report.parent.iterdir())
        for link in re.findall(r"\]\(([^)#]+)\)", report.read_text()):
            assert "://" in link or (report.parent / link).exists(), (report, link)
