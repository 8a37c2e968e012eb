"""Stages: references to earlier ones, and options on the command line."""

import dataclasses
import json
import re

import pytest

import kdjax
from experiments.stages.generated import tiny
from experiments.stages.multi_head_graph import multi_head_graph
from experiments.stages.specialists import specialists
from kdjax import setup
from kdjax.cli.options import parse_job, parse_run
from kdjax.config import (
    ConfigError,
    Custom,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    Network,
    Stages,
    Term,
    labels_only,
    to_dict,
)
from kdjax.jobs import staging
from kdjax.presets import digits
from kdjax.setup.early import check_names

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


NO_EARLIER = {
    ("second", "second"): "got 'second', which is this one",
    ("second", "third"): "got 'third', which comes later",
    ("second", "gone"): "of ['first'], got 'gone'",
    ("first", "first"): "got 'first', which is this one",
    ("first", "gone"): "(there is none), got 'gone'",
}


@pytest.mark.parametrize("pair", NO_EARLIER, ids=" ".join)
def test_a_stage_that_names_itself_a_later_one_or_none_is_refused(pair):
    name, named = pair
    taught = digits(teacher=FromRun(f"stage:{named}"))
    runs = {"first": alone(), "second": alone(), "third": alone(), name: taught}
    with pytest.raises(ConfigError) as error:
        kdjax.jobs.run_stages(Stages(runs))
    text = re.sub(
        r"did you mean '\w+'\? |earlier stage,", "earlier stage", f"{error.value}"
    )
    start = f"runs.{name}.teacher.run: expected an earlier stage "
    assert text == start + NO_EARLIER[pair].removeprefix(", ")


def test_errors_of_a_stage_name_it():
    with pytest.raises(ConfigError, match="^runs: expected at least one stage"):
        Stages({}).check()
    with pytest.raises(ConfigError, match="^runs: expected names of letters"):
        Stages({"a/b": alone()}).check()
    with pytest.raises(ConfigError, match="^runs.a.steps: expected"):
        Stages({"a": alone(steps=0)}).check()


NO_STAGES = {
    "runs.a: expected a Run, got 3": Stages({"a": 3}),
    "runs: expected a table of runs by name, got list": Stages([alone()]),
    "workdir: expected a folder, got 3": Stages({"a": alone()}, 3),
    "runs: expected names that are no field of a run, got 'steps'": Stages(
        {"steps": alone()}
    ),
    "runs.a.teacher: expected": Stages({"a": alone(), "b": digits(teacher=3)}),
}


@pytest.mark.parametrize("text", NO_STAGES)
def test_what_is_no_table_of_runs_is_one_line(text):
    with pytest.raises(ConfigError) as error:
        NO_STAGES[text].check()
    assert str(error.value).startswith(text.replace("a.teacher", "b.teacher"))


def test_a_teacher_has_the_name_of_a_field():
    Stages({"teacher": alone(), "b": digits(teacher=FromRun("stage:teacher"))}).check()


def test_a_student_is_the_network_of_the_stage_that_it_starts_from():
    first = alone()
    start = dataclasses.replace(first.model, weights="stage:a")
    Stages({"a": first, "b": alone(model=start)}).check()
    wider = dataclasses.replace(start, width=16)
    text = "^runs.b.model.width: expected 2, that of stage a, got 16"
    with pytest.raises(ConfigError, match=text):
        Stages({"a": first, "b": alone(model=wider)}).check()


def start(**changes):
    """The model of `alone`, from its stage."""
    return dataclasses.replace(alone().model, weights="stage:first", **changes)


def beside(model, **fields):
    """A run that starts a peer from an earlier stage."""
    peer = Network(model, **fields)
    return alone(strategy=Custom("mutual"), networks={"peer": peer})


def hinted(term="hint", by="stage:first", **changes):
    fields = {
        "loss": "hint_l2",
        "student": "stage1",
        "teacher": "stage1",
        "projector": "conv_bn",
    }
    terms = {term: Term(**{**fields, **changes})}
    return digits(teacher=FromRun(by), terms=terms, baselines=())


HINT = {"projector_weights": "stage:hint"}
PAIR = {"student": ("stage1", "stage2"), "teacher": ("stage1", "stage2")}
# What the stage `last` takes from `first`, `hint` or `pair`, of three seeds.
NOT_THERE = {
    "terms.other.projector_weights: expected a run whose term other trained a": (
        hinted("other", **HINT)
    ),
    "terms.hint.projector_weights: expected the projector mlp, got conv_bn of": (
        hinted(projector="mlp", **HINT)
    ),
    "terms.hint.projector_weights: expected a run whose term hint stage1-stage1 ": (
        hinted(pair="depth", **PAIR, **HINT)
    ),
    "terms.hint.projector_weights: expected a run whose term hint trained a ": (
        hinted(projector_weights="stage:pair")
    ),
    "terms.hint.projector_weights: expected a run of seeds 0 to 3, or of one seed, "
    "got seeds 0 to 2 of stage hint": dataclasses.replace(hinted(**HINT), seeds=4),
    "model.weights: expected a run of seeds 0 to 3, or of one seed, got seeds 0": (
        alone(model=start(), seeds=4)
    ),
    "model.weights: expected a run of seed 3, or of one seed, got seeds 0 to 2": (
        alone(model=start(), seeds=1, seed=3)
    ),
    "networks.peer.model.weights: expected a run of seeds 1 to 3, or of one seed": (
        dataclasses.replace(beside(start()), seed=1)
    ),
    "networks.peer.model.width: expected 2, that of stage first, got 16": (
        beside(start(width=16))
    ),
    "networks.peer.network: expected a network that stage first trains, of []": (
        beside(start(), network="critic")
    ),
    "model.norm: expected 'group', that of stage first, got 'batch'": (
        alone(model=start(norm="batch"))
    ),
    "teacher.seed: expected one of its seeds, 0 to 2, got 3": (
        digits(teacher=FromRun("stage:first", seed=3))
    ),
    "teacher.model.weights: expected published weights (a stage goes in teacher.run)": (
        digits(teacher=FromWeights(start()))
    ),
    "terms.hint.loss: did you mean 'hint_l2' or 'hint_l1'? expected the name of": (
        hinted(loss="hint_l22")
    ),
    "strategy.function: did you mean 'crd'? expected the name of a strategy": (
        digits(teacher=FromRun("stage:first"), strategy=Custom("crdd"))
    ),
    "model.name: did you mean 'resnet' or ": (
        digits(teacher=FromRun("stage:first"), model=ModelConfig("resnett"))
    ),
}


def ending(last, folder):
    """Three stages before a last one."""
    runs = {"first": alone(), "hint": hinted(), "pair": hinted(pair="depth", **PAIR)}
    return Stages({**runs, "last": last}, str(folder))


@pytest.mark.parametrize("text", NOT_THERE, ids=range(len(NOT_THERE)))
def test_what_a_stage_takes_is_checked_before_the_first_is_trained(text, tmp_path):
    with pytest.raises(ConfigError) as error:
        kdjax.jobs.run_stages(ending(NOT_THERE[text], tmp_path / "all"))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"runs.last.{text}")
    assert not (tmp_path / "all").exists()


TRACED = {
    "strategy.options.negatives: expected at least 1, got 0": digits(
        teacher=FromRun("stage:first"), strategy=Custom("crd", {"negatives": 0})
    ),
    "terms.hint.student: did you mean 'stage": hinted(student="stage9"),
}


@pytest.mark.parametrize("text", TRACED, ids=range(len(TRACED)))
def test_networks_of_later_stages_are_traced_first(text, tmp_path):
    stages = Stages({"first": alone(), "last": TRACED[text]}, str(tmp_path / "both"))
    with pytest.raises(ConfigError) as error:
        kdjax.jobs.run_stages(stages)
    assert str(error.value).startswith(f"runs.last.{text}")
    assert not (tmp_path / "both").exists()


@pytest.mark.full
@pytest.mark.parametrize("function", [tiny, specialists, multi_head_graph])
def test_stages_that_fit_are_no_errors(function, tmp_path):
    """Frozen networks, several teachers, and networks beside the student."""
    runs = dataclasses.replace(function(), workdir=str(tmp_path / "all")).resolve()
    staging._check_names(runs)
    staging._check_networks(runs, None)


def test_a_network_has_the_fields_of_the_one_that_it_starts_from(tmp_path):
    """Of a run folder, and of a stage without a folder."""
    critic = ModelConfig("resnet", depth=14, width=4, resolution=8)
    before = beside(critic)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(before)))
    summary = {"test": {"accuracy": [0.5]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    taken = ModelConfig(weights=str(tmp_path))
    run = beside(taken, network="peer")
    completed, _ = setup.complete_models(run)
    filled = setup.fill_models(run, {str(tmp_path): before})
    for each in (completed, filled):
        model = each.networks["peer"].model
        assert model == dataclasses.replace(critic, weights=str(tmp_path))
    with pytest.raises(ConfigError, match="^networks.peer.network: expected one of"):
        setup.complete_models(beside(taken, network="critic"))


ALONE = {
    "terms.hint.projector_weights": hinted(by="runs/a", **HINT),
    "teacher.run": hinted(),
    "model.weights": alone(model=start()),
    "networks.peer.model.weights": beside(start()),
}


@pytest.mark.parametrize("field", ALONE)
def test_a_stage_is_named_in_stages_alone(field):
    text = rf"^{field}: stage:\w+ stands for a folder in Stages alone"
    with pytest.raises(ConfigError, match=text):
        check_names(ALONE[field])


def test_options_are_of_all_stages_or_of_the_one_they_name(file):
    words = ["--config", file, "--seeds", "3", "--second.batch", "8", "--workdir", "x"]
    stages = parse_job("distill", words)
    assert [run.seeds for run in stages.runs.values()] == [3, 3]
    assert [run.batch for run in stages.runs.values()] == [digits().batch, 8]
    assert stages.workdir == "x"
    new = ["loss", "hard_cross_entropy", "teacher", "labels"]
    pairs = zip(new[::2], new[1::2], strict=True)
    words += [x for field, y in pairs for x in (f"--second.terms.new.{field}", y)]
    first, second = parse_job("distill", words).runs.values()
    assert "new" in second.terms and "new" not in first.terms
    with pytest.raises(ConfigError, match="^config: these are stages"):
        parse_run("train", words)
    with pytest.raises(ConfigError, match="^--thrid.batch: .*expected an option"):
        parse_job("distill", ["--config", file, "--thrid.batch", "8"])


OPTIONS = {
    ("--second.workdir", "runs/x"): "second.workdir: expected none, a stage has the "
    "folder both/second, got 'runs/x'",
    ("--second.name", "x"): "second.name: expected none, a stage has the name that ",
    ("--name", "x"): "name: expected none, a stage has the name that ",
    ("--secnd.batch", "8"): "--secnd.batch: did you mean --second.batch? expected an "
    "option of all stages, or of one: first, second, got --secnd.batch",
    ("--batchh", "8"): "--batchh: did you mean --batch? expected an option",
    ("--second", "8"): "--second: expected --second.FIELD, a field of the stage second",
    ("--second.batchh", "8"): "--second.batchh: did you mean --second.batch? expected "
    "an option (--help and --help-all show them), got --second.batchh",
    ("--second.optim.lrr", "8"): "second.optim.lrr: did you mean 'lr'? exp",
    ("--second.batch", "x"): "second.batch: expected a value of type int, got 'x'",
}


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_an_option_of_no_stage_is_one_line(words, file):
    with pytest.raises(ConfigError) as error:
        parse_job("distill", ["--config", file, *words])
    assert str(error.value).startswith(OPTIONS[words])


def test_stages_are_checked_before_options_are_set(tmp_path, monkeypatch):
    code = CODE.replace('"second": second', '"steps": second')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    text = "^runs: expected names that are no field of a run, got 'steps'$"
    with pytest.raises(ConfigError, match=text):
        parse_job("distill", ["--config", "mine.py:two", "--steps", "4"])


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
