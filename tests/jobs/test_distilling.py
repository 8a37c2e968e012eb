"""The plan of a distillation: its trainings, in order, and their checks."""

import dataclasses
import io
import pathlib

import numpy as np
import pytest
from rich.console import Console

import kdjax
from kdjax import setup
from kdjax.config import HARD, ConfigError, Ensemble, FromRun
from kdjax.core.fingerprint import is_abstract
from kdjax.core.runlog import RunFolderError
from kdjax.jobs.distilling import check_trainings, plan_trainings, prepare
from kdjax.jobs.start import lock_folder, open_job
from kdjax.models import from_function
from tests.e2e.linear_runs import TEACHER, linear

DATA = {"train", "validation", "test"}


def plan(run, **passed):
    """The trainings of a run, without fingerprints of its data."""
    return plan_trainings(open_job(run, console=Console(file=io.StringIO()), **passed))


def plan_with_data(run, **passed):
    console = Console(file=io.StringIO())
    return prepare(open_job(run, console=console, **passed))[1]


def test_a_teacher_is_trained_first_and_the_student_last(tiny_run):
    run = tiny_run(baselines=("labels", "labels_mixup"))
    trainings = plan_with_data(run, student=linear())
    root = run.folder
    folders = [root / "teacher", root / "labels", root / "labels_mixup", root]
    assert [training.run.folder for training in trainings] == folders
    teacher, *others = trainings
    assert [training.section for training in trainings] == ["teacher", "", "", ""]
    # The model passed from Python is the student, in every training but the teacher's.
    assert teacher.student is None and teacher.identity.overrides == {}
    assert teacher.identity.content.keys() == DATA
    for training in others:
        assert is_abstract(training.teacher.variables)
        assert training.identity.content.keys() == DATA | {"model"}
        assert training.identity.overrides.keys() == {"model"}
    assert not root.exists()


def test_a_teacher_with_values_is_part_of_the_identity_and_loaded_once(tiny_run):
    run = tiny_run(baselines=("labels",))
    trainings = plan_with_data(run, student=linear(), teacher=TEACHER)
    assert [training.run.name for training in trainings] == ["labels", run.name]
    for training in trainings:
        assert training.identity.content.keys() == DATA | {"model", "teacher"}
        assert training.load_teacher() is trainings[0].teacher
    weights = trainings[0].teacher.variables["params"]["w"]
    np.testing.assert_array_equal(weights, TEACHER[1]["params"]["w"])


def test_the_folder_of_every_training_is_compared_before_the_first_is_trained(tiny_run):
    """A baseline's folder of another run: neither teacher nor student begins."""
    run = tiny_run(baselines=("labels",))
    _, baseline, student = plan(run, student=linear())
    other = dataclasses.replace(baseline.identity, content={"model": "another"})
    with lock_folder(run.folder, student.identity):
        pass
    with lock_folder(baseline.run.folder, other):
        pass
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(
        RunFolderError, match="model: the shapes of its variables changed since"
    ):
        kdjax.distill(run, student=linear())
    assert sorted(run.folder.rglob("*")) == before


def test_a_model_that_cannot_be_initialized_is_named(tiny_run):
    def init(key, images):
        raise TypeError("no such layer\nand more")

    broken = from_function(lambda params, x: x, init=init)
    run = tiny_run()
    text = (
        r"^model: expected a model of images \(1, 8, 8, 1\), its init raised "
        "TypeError: no such layer$"
    )
    with pytest.raises(ConfigError, match=text):
        kdjax.distill(run, student=broken, teacher=TEACHER)
    assert not pathlib.Path(run.workdir).exists()


def test_errors_of_a_teachers_training_name_its_fields(tiny_run):
    run = tiny_run()
    training = plan(run, student=linear())[0]
    optim = dataclasses.replace(training.run.optim, warmup=training.run.steps + 1)
    wrong = training._replace(run=dataclasses.replace(training.run, optim=optim))
    with pytest.raises(ConfigError, match=r"^teacher.optim.warmup: expected fewer"):
        check_trainings([wrong])
    with pytest.raises(ConfigError, match=r"^optim.warmup: expected fewer"):
        check_trainings([wrong._replace(section="")])


def test_a_run_that_has_begun_is_not_checked_again(tiny_run, monkeypatch):
    """It passed with the same config, and a restart is to be quick."""
    run, traced = tiny_run(), []
    monkeypatch.setattr(setup, "check_fit", lambda run, **_: traced.append(run.name))
    trainings = plan(run, student=linear(), teacher=TEACHER)
    check_trainings(trainings)
    assert traced == ["tiny"]
    with lock_folder(run.folder, trainings[0].identity):
        pass
    check_trainings(trainings)
    assert traced == ["tiny"]


@pytest.mark.full
def test_a_member_that_is_trained_first_has_its_own_section(tiny_run, tmp_path):
    first = tiny_run(
        workdir=str(tmp_path / "first"), teacher=None, terms={"hard": HARD}
    )
    folder = kdjax.jobs.train(first)
    members = FromRun(str(folder)), tiny_run().teacher
    trainings = plan(tiny_run(teacher=Ensemble(members)), student=linear())
    assert [training.section for training in trainings] == ["teacher.members.1", ""]
    assert trainings[0].run.folder == tiny_run().folder / "teacher"
    broken = dataclasses.replace(members[1].model, depth=9)
    run = dataclasses.replace(trainings[0].run, model=broken)
    with pytest.raises(ConfigError, match="^teacher.members.1.model.depth: expected"):
        check_trainings([trainings[0]._replace(run=run)])


def test_a_training_prints_its_table_and_the_path_of_its_report(tiny_run):
    run = tiny_run(name="alone", teacher=None, terms={"hard": HARD})
    output = io.StringIO()
    console = Console(file=output, width=200)
    kdjax.jobs.train(run, model=linear(), console=console)
    lines = output.getvalue().splitlines()
    assert lines[-1] == f"report: {run.folder / 'report.md'}"
    assert any("alone" in line and "640" in line for line in lines)
