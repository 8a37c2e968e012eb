"""Hours of a sweep, from finished runs and from records."""

import json

import pytest

from kdjax.experiments import Experiment
from kdjax.experiments.costs import describe_costs
from kdjax.presets import digits


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two variants of 100 and 400 steps."""
    monkeypatch.chdir(tmp_path)
    variants = dict.fromkeys(("a", "b"), lambda scale="tiny": digits(steps=100))
    path = tmp_path / "own" / "file.py"
    durations = {"tiny": (1, 4)}
    return Experiment("claim", variants=variants, durations=durations, path=path)


def summary(seconds, machine="1 x cpu, 2 CPU cores"):
    return {"seconds": seconds, "seeds": [0, 1], "machine": machine}


def test_hours_come_from_records_with_their_machine(experiment):
    """a: 360 s for 100 steps, 720 s for 400. b: 3,600 s for 400, so 900 s for 100. In
    all 5,580 s = 1.55 h."""
    folder = experiment.path.parent / "results" / "file-tiny"
    folder.mkdir(parents=True)
    runs = {"a-x1": 360.0, "a-x4": 720.0, "b-x4": 3600.0}
    lines = [{"experiment": "file.py"}]
    lines += [{"run": name, "summary": summary(x)} for name, x in runs.items()]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert describe_costs(experiment, "tiny") == (
        "4 runs, 1.6 h for 2 seeds as 3 of them recorded on 1 x cpu, 2 CPU cores"
    )


def test_runs_finished_here_come_first(experiment):
    """a alone, 72 s a step: b takes as long, 1,000 steps in all are 20 h."""
    folder = experiment.folder("tiny") / "a-x1"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(7_200, "this one")))
    (folder.parent / "torn-x1").mkdir()
    (folder.parent / "torn-x1" / "summary.json").write_text("{")
    assert describe_costs(experiment, "tiny") == (
        "4 runs, 20.0 h for 2 seeds as 1 of them finished here on this one"
    )


def test_without_records_it_says_so(experiment):
    assert describe_costs(experiment, "tiny") == (
        "4 runs, 1,000 steps, hours not measured"
    )
