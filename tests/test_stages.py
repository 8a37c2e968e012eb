"""Stages: references to earlier ones, and options on the command line."""

import dataclasses

import pytest

import kdjax
from kdjax.cli.options import parse_job, parse_run
from kdjax.config import (
    ConfigError,
    Custom,
    Ensemble,
    FromRun,
    ModelConfig,
    Network,
    Stages,
    Term,
    labels_only,
)
from kdjax.presets import digits

CODE = """
import dataclasses

from kdjax.config import FromRun, Stages, labels_only
from kdjax.presets import digits


def two():
    student = digits(steps=40, optim=dataclasses.replace(digits().optim, warmup=2))
    first = labels_only(student, teacher=None)
    second = dataclasses.replace(student, teacher=FromRun("stage:first"), baselines=())
    return Stages({"first": first, "second": second}, "both")
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return "mine.py:two"


def alone(**changes):
    return labels_only(digits(), teacher=None, **changes)


def test_a_stage_stands_for_its_folder_wherever_it_is_named():
    weights = ModelConfig(weights="stage:a")
    last = digits(
        model=weights,
        teacher=Ensemble((FromRun("stage:a"), FromRun("stage:b"), FromRun("other"))),
        strategy=Custom("mutual"),
        networks={"peer": Network(weights)},
        terms={"hint": Term(projector=True, projector_weights="stage:b")},
    )
    stages = Stages({"a": alone(), "b": alone(), "last": last}, "root")
    run = stages.resolve()["last"]
    assert (run.name, run.workdir) == ("last", "root/last")
    assert [member.run for member in run.teacher.members] == [
        "root/a",
        "root/b",
        "other",
    ]
    assert run.model.weights == run.networks["peer"].model.weights == "root/a"
    assert run.terms["hint"].projector_weights == "root/b"
    assert stages.earlier("last") == ["a", "a", "a", "b", "b"]
    assert stages.earlier("a") == []


@pytest.mark.parametrize("named", ["second", "third", "gone"])
def test_a_stage_that_names_itself_a_later_one_or_none_is_refused(named):
    second = digits(teacher=FromRun(f"stage:{named}"))
    stages = Stages({"first": alone(), "second": second, "third": alone()})
    text = r"^runs.second.teacher.run: .*expected an earlier stage, of \['first'\]"
    with pytest.raises(ConfigError, match=text):
        kdjax.jobs.run_stages(stages)


def test_errors_of_a_stage_name_it():
    with pytest.raises(ConfigError, match="^runs: expected at least one stage"):
        Stages({}).check()
    with pytest.raises(ConfigError, match="^runs: expected names of letters"):
        Stages({"a/b": alone()}).check()
    with pytest.raises(ConfigError, match="^runs.a.steps: expected"):
        Stages({"a": alone(steps=0)}).check()


def test_a_student_is_the_network_of_the_stage_that_it_starts_from():
    first = alone()
    start = dataclasses.replace(first.model, weights="stage:a")
    Stages({"a": first, "b": alone(model=start)}).check()
    wider = dataclasses.replace(start, width=16)
    text = "^runs.b.model.width: expected 2, that of stage a, got 16"
    with pytest.raises(ConfigError, match=text):
        Stages({"a": first, "b": alone(model=wider)}).check()


def test_names_of_every_stage_are_checked_before_the_first_is_trained(tmp_path):
    """That of a loss is: those of stages without references to unfinished ones."""
    wrong = dataclasses.replace(alone(), model=ModelConfig("resnett"))
    stages = Stages({"first": alone(), "second": wrong}, str(tmp_path / "both"))
    with pytest.raises(ConfigError, match="^runs.second.model.name: did you mean"):
        kdjax.jobs.run_stages(stages)
    assert not (tmp_path / "both").exists()


def test_options_are_of_all_stages_or_of_the_one_they_name(file):
    words = ["--config", file, "--seeds", "3", "--second.batch", "8", "--workdir", "x"]
    stages = parse_job("distill", words)
    assert [run.seeds for run in stages.runs.values()] == [3, 3]
    assert [run.batch for run in stages.runs.values()] == [digits().batch, 8]
    assert stages.workdir == "x"
    with pytest.raises(ConfigError, match="^config: these are stages"):
        parse_run("train", words)
    with pytest.raises(ConfigError, match="^--thrid.batch: .*expected an option"):
        parse_job("distill", ["--config", file, "--thrid.batch", "8"])


@pytest.mark.full
def test_stages_are_trained_in_order_and_resumed(file, tmp_path):
    short = ["--steps", "4", "--seeds", "1", "--evaluate-every", "4"]
    stages = parse_job("distill", ["--config", file, *short])
    first = Stages({"first": stages.runs["first"]}, stages.workdir)
    kdjax.jobs.run_stages(first)
    summary = tmp_path / "both/first/summary.json"
    before = summary.read_bytes()
    assert kdjax.jobs.run_stages(stages) == stages.folder
    assert summary.read_bytes() == before
    table = (tmp_path / "both/report.md").read_text()
    assert "| first " in table and "| second " in table
