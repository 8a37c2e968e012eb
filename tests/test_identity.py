"""Identity of a run: what is compared, what may differ, and what stands on disk."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from kdjax.config import (
    Cache,
    Ensemble,
    FromRun,
    ModelConfig,
    Optim,
    Scalar,
    Term,
    Views,
    to_dict,
)
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.core.types import BoundModel
from kdjax.models import from_function, zoo
from kdjax.presets import digits, digits_teacher
from kdjax.setup.identity import (
    FREE,
    Identity,
    as_effective,
    find_changed_inputs,
    find_differences,
    fingerprint_functions,
    fingerprint_student,
    fingerprint_teacher,
    make_identity,
    open_folder,
    parse_identity,
    read_identity,
    refuse_other,
)

RUN = digits(name="a", steps=5)
CONTENT = {"train": "1", "validation": "2", "test": "3"}
OVERRIDES = {"splits": "a splits of the caller's"}
MINE = """\
def make(config, classes):
    return None


def loss(student, teacher):
    return abs(student - teacher).sum(-1)
"""


def differences(old, new):
    return find_differences(make_identity(old), make_identity(new))


def test_the_folder_is_refused_with_every_difference(tmp_path):
    open_folder(tmp_path, make_identity(RUN, {"teacher": "a line"}, CONTENT))
    before = (tmp_path / "config.json").read_bytes()
    other = dataclasses.replace(RUN, name="b", optim=Optim(lr=0.5), teacher=None)
    content = {**CONTENT, "test": "4"}
    with pytest.raises(RunFolderError) as caught:
        open_folder(tmp_path, make_identity(other, {"model": "a line"}, content))
    first, *lines = str(caught.value).splitlines()
    assert first == f"workdir: {tmp_path} holds another run:"
    teacher = json.dumps(to_dict(RUN)["teacher"])
    assert lines == [
        "  data.test: its images or labels changed since the run began; use another "
        "--workdir",
        '  given.model: folder has nothing, this run has "a line"',
        '  given.teacher: folder has "a line", this run has nothing',
        f"  optim.lr: folder has {RUN.optim.lr}, this run has 0.5",
        f"  teacher: folder has {teacher}, this run has null",
    ]
    assert (tmp_path / "config.json").read_bytes() == before


CHANGES = {
    "name": "b",
    "workdir": "elsewhere",
    "compute": {"data": 1},
    "trackers": ["wandb"],
    "skip": {"most": 3},
    "data.pipeline": "host",
    "data.workers": 9,
    "data.data_dir": "elsewhere",
    "compute.how": "pmap",
    "compute.data": 3,
    "compute.fsdp": 2,
    "compute.shard": {"*/kernel": 0},
    "compute.remat": "all",
    "compute.steps_per_call": 5,
    "compute.several_processes": True,
    "compute.meet_within": 9.0,
    "compute.lost_after": 9.0,
}


def with_field(field, value):
    values = to_dict(RUN)
    table, _, name = field.rpartition(".")
    old = (values[table] if table else values)[name]
    new = {**old, **value} if isinstance(value, dict) else value
    assert old != new
    (values[table] if table else values)[name] = new
    return parse_identity(values)


@pytest.mark.parametrize("field", FREE)
def test_a_free_field_may_differ(field):
    if field == "given.splits":
        new = make_identity(RUN, {}, CONTENT)
        assert find_differences(make_identity(RUN, OVERRIDES, CONTENT), new) == []
        return
    identity = with_field(field, CHANGES[field])
    assert find_differences(make_identity(RUN), identity) == []


@pytest.mark.parametrize(
    "field, value",
    [
        *(("data.crop", "host"), ("seeds", 2), ("batch", 8), ("seed", 1)),
        *(("compute.precision", "bfloat16"), ("compute.accumulate", 2)),
    ],
)
def test_any_other_field_may_not(field, value):
    (line,) = find_differences(make_identity(RUN), with_field(field, value))
    assert line.startswith(f"{field}: folder has ")


def test_the_path_of_a_cache_may_differ_where_both_have_one():
    def cached(path):
        return dataclasses.replace(RUN, teacher=digits_teacher(cache=Cache(path=path)))

    assert differences(cached("a"), cached("b")) == []
    line = 'teacher.cache.path: folder has "", this run has "b"'
    assert differences(cached(""), cached("b")) == [line]
    assert len(differences(cached("a"), cached(""))) == 1


def test_only_inputs_with_a_fingerprint_on_both_sides_are_compared():
    old = make_identity(RUN, {}, {"train": "1", "teacher": "2"})
    assert find_differences(old, make_identity(RUN, {}, {"train": "1", "x": "3"})) == []
    assert find_differences(old, make_identity(RUN, {}, {})) == []
    assert find_differences(old, Identity(content={"train": "1"})) == []
    line = "teacher: the weights or code changed since the run began"
    found = find_differences(old, Identity(content={"teacher": "3"}))
    assert found == [f"{line}; use another --workdir"]


def test_an_input_that_changed_is_named_by_its_field_and_file():
    run = dataclasses.replace(
        RUN,
        model=ModelConfig("net.py:make", weights="start.npz"),
        teacher=FromRun("runs/x"),
        terms={"soft": Term("mine.py:loss", example_weights="more.py:f")},
    )
    names = "model", "start", "teacher", "terms.soft.loss"
    names += "terms.soft.example_weights", "test"
    old, new = (make_identity(run, {}, dict.fromkeys(names, x)) for x in "01")
    assert find_changed_inputs(old, old) == []
    assert find_changed_inputs(old, new) == [
        f"{what} changed since the run began"
        for what in (
            "model.name: net.py",
            "model.weights: start.npz",
            "teacher: the weights or code of runs/x",
            "terms.soft.example_weights: more.py",
            "terms.soft.loss: mine.py",
            "data.test: its images or labels",
        )
    ]
    plain = make_identity(RUN, {}, {"model": "0"})
    other = make_identity(RUN, {}, {"model": "1"})
    (line,) = find_changed_inputs(plain, other)
    assert line.startswith("model: the shapes of its variables changed")


def test_parts_that_are_none_are_not_compared():
    old = make_identity(RUN, {"teacher": "a line"}, CONTENT)
    assert find_differences(old, make_identity(RUN)) == []
    assert find_differences(old, Identity(overrides={"teacher": "a line"})) == []
    assert len(find_differences(old, make_identity(RUN, {}))) == 1


def test_tuples_and_numbers_are_those_of_the_file(tmp_path):
    run = dataclasses.replace(RUN, views=Views(area=(0.5, 1.0)))
    open_folder(tmp_path, make_identity(run))
    refuse_other(tmp_path, make_identity(run))
    other = dataclasses.replace(RUN, views=Views(area=(0.5, 0.9)))
    with pytest.raises(RunFolderError, match=r"area: folder has \[0.5, 1.0\], this"):
        refuse_other(tmp_path, make_identity(other))


def test_a_field_that_is_younger_than_the_folder_has_its_default():
    run = digits(steps=7, teacher=Ensemble((digits_teacher(), FromRun("x"))))
    values = to_dict(run)
    del values["batch"], values["teacher"]["mean"], values["terms"]["soft"]["loss"]
    del values["teacher"]["members"][1]["step"]
    assert as_effective(values) == as_effective(to_dict(run))
    assert find_differences(parse_identity(values), make_identity(run)) == []
    line = "batch: folder has 64, this run has 8"
    other = dataclasses.replace(run, batch=8)
    assert find_differences(parse_identity(values), make_identity(other)) == [line]
    # A table that is no config is compared as it is.
    assert as_effective({"sept": 7}) == {"sept": 7}


def test_the_default_temperature_of_a_loss_is_the_same_run():
    def at(temperature):
        return dataclasses.replace(
            RUN, terms={"x": Term("dkd", temperature=temperature)}
        )

    assert differences(at(None), at(Scalar(4.0))) == []
    (line,) = differences(at(None), at(Scalar(1.0)))
    assert line.startswith("terms.x.temperature.value: folder has 4.0")


def test_the_file_has_the_keys_of_existing_folders(tmp_path):
    folder = open_folder(tmp_path / "a" / "run", make_identity(RUN, OVERRIDES, CONTENT))
    config = runlog.read_config(folder)
    assert config == {**to_dict(RUN), "given": OVERRIDES, "content": CONTENT}
    assert read_identity(folder) == make_identity(RUN, OVERRIDES, CONTENT)
    # A run of its config alone has no further keys.
    plain = open_folder(tmp_path / "plain", make_identity(RUN, {}, {}))
    assert runlog.read_config(plain) == to_dict(RUN)
    assert read_identity(plain) == make_identity(RUN, {}, {})


def test_missing_fingerprints_are_added_and_known_ones_stay(tmp_path):
    open_folder(tmp_path, make_identity(RUN, {}, {"train": "1"}))
    open_folder(tmp_path, make_identity(RUN, {}, {"test": "2"}))
    assert read_identity(tmp_path).content == {"train": "1", "test": "2"}
    before = (tmp_path / "config.json").stat().st_mtime_ns
    open_folder(tmp_path, make_identity(RUN, {}, {"test": "2"}))
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ['{"name": ', "", "\x00", b"\xff\xfe{", "[1]"])
def test_an_unreadable_config_is_refused_and_kept(tmp_path, text):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "config.json").write_bytes(content)
    want = "table of fields" if text == "[1]" else "JSON"
    for use in (refuse_other, open_folder):
        with pytest.raises(RunFolderError, match=f"config.json is not a?.*{want}"):
            use(tmp_path, make_identity(RUN))
    assert [f.name for f in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_bytes() == content


def test_files_of_no_run_are_refused_without_writing(tmp_path):
    refuse_other(tmp_path / "new", make_identity(RUN))
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    for use in (refuse_other, open_folder):
        with pytest.raises(RunFolderError, match="not empty .* thesis.tex"):
            use(tmp_path, make_identity(RUN))
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_the_digits_of_existing_folders_stay(mine):
    """Those of the first versions; other ones would refuse every folder."""
    model = ModelConfig(name=f"{mine}:make", resolution=8)
    assert zoo.fingerprint_model(model) == "make 87c9492ef058806a"
    deep = dataclasses.replace(model, depth=14, weights="x")
    assert zoo.fingerprint_model(deep) == "make 1b3c8113ea61efe0"
    run = digits(terms={"x": Term(f"{mine}:loss"), "y": Term("softmax_kl")})
    assert fingerprint_functions(run) == {"terms.x.loss": "loss 606beb61596402d6"}


def linear(width):
    return from_function(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        init=lambda key, x: {"w": np.zeros((x[0].size, width), np.float32)},
    )


def shapes(width):
    return {"w": jax.ShapeDtypeStruct((4, width), np.float32)}


def test_a_student_is_identified_by_its_shapes_code_and_initial_weights(mine):
    run = dataclasses.replace(RUN, model=ModelConfig("resnet", resolution=2))
    three, four = (fingerprint_student(run, shapes(width), {}) for width in (3, 4))
    assert three.keys() == {"model"} and three != four
    assert three == fingerprint_student(run, shapes(3), {})
    # A network of kdjax is identified by its config.
    assert fingerprint_student(run, None, {}) == {}
    starts = [{"w": np.full(2, x, np.float32)} for x in (0, 1)]
    a, b = (fingerprint_student(run, None, {"student": x}) for x in starts)
    assert a.keys() == {"start"} and a != b
    own = dataclasses.replace(
        RUN,
        model=ModelConfig(name=f"{mine}:make", resolution=8),
        terms={"x": Term(f"{mine}:loss")},
    )
    content = fingerprint_student(own, None, {})
    assert content.keys() == {"model", "terms.x.loss"}


def test_a_teacher_is_identified_by_its_values_and_code():
    teacher = BoundModel(linear(3), {"w": np.ones(2, np.float32)}, None, 2)
    plain = fingerprint_teacher(teacher)["teacher"]
    coded = fingerprint_teacher(teacher._replace(code=("", "make 0")))["teacher"]
    assert coded == f"{plain} make 0"
    other = teacher._replace(variables={"w": np.zeros(2, np.float32)})
    assert fingerprint_teacher(other)["teacher"] != plain
    assert fingerprint_teacher(None) == {}
