"""Configs: to JSON and back, errors that name the field."""

import dataclasses
import json
import pathlib

import pytest

from kdjax import config
from kdjax.config import (
    ConfigError,
    Member,
    Model,
    Optim,
    Run,
    Scalar,
    Teacher,
    Term,
    Views,
    load_function,
    source_files,
)

HEADLESS = Model(weights="x", adapt=("head",))


def test_a_config_survives_json():
    run = Run(
        teacher=Teacher(run="x"),
        terms={"a": Term(weight=Scalar(1.0, 0.0, "cosine")), "b": config.HARD},
        baselines=("labels",),
        trackers=("tensorboard",),
    )
    for each in (run, Run(), config.labelled(run, teacher=None)):
        assert config.from_dict(json.loads(json.dumps(config.to_dict(each)))) == each


def test_the_defaults_are_good():
    Run().check()
    config.labelled(Run(), teacher=None).check()


def change(path, value):
    values = config.to_dict(Run())
    at = values
    *parents, last = path.split(".")
    for name in parents:
        at = at[name]
    at[last] = value
    return values


def test_a_field_that_is_younger_than_a_config_has_its_default():
    run = Run(steps=7, teacher=Teacher(also=(Member(run="x"),), steps=9))
    values = config.to_dict(run)
    del values["batch"], values["teacher"]["mean"], values["terms"]["soft"]["loss"]
    del values["teacher"]["also"][0]["step"]
    values["content"] = {"train": "a digest"}
    assert config.from_dict(values) == run
    whole = {**config.to_dict(run), "content": {"train": "a digest"}}
    assert config.complete(values) == whole
    assert config.complete({"sept": 7}) == {"sept": 7}


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("optim.rate", 1.0, "optim.rate: expected a known field"),
        ("optim.lr", "fast", "optim.lr: expected a value of type float, got 'fast'"),
        ("optim.lr", True, "optim.lr: expected a value of type float, got True"),
        ("steps", 1.5, "steps: expected a value of type int, got 1.5"),
        ("views.mode", "x", "views.mode: expected one of"),
        ("views", 3, "views: expected a table of fields, got 3"),
        ("terms.soft.weight", 2, "terms.soft.weight: expected a table of fields"),
        ("baselines", ["labels", "x"], "baselines: expected one of"),
    ],
)
def test_bad_json_is_named(path, value, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(change(path, value))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(seeds=0), "seeds: expected at least 1, got 0"),
        (dict(steps="100"), "steps: expected a value of type int, got '100'"),
        (dict(steps=100.0), "steps: expected a value of type int, got 100.0"),
        (dict(views=Views(area=(0.5,))), "views.area: expected 2 values"),  # type: ignore
        (dict(terms={"a": Term(weight=0.5)}), "terms.a.weight: expected a table"),  # type: ignore
        (dict(terms=[Term()]), "terms: expected a table"),
        (
            dict(optim=Optim(schedule="steps", milestones=(0.5, 0.50001))),
            "optim.milestones: expected steps one after another",
        ),
        (dict(seed=-1), "seed: expected 0 <= seed"),
        (dict(terms={}), "terms: expected at least one term"),
        (dict(teacher=None), "terms.soft.teacher: expected labels, without a teacher"),
        (
            dict(optim=Optim(lr=float("nan"))),
            "optim.lr: expected a number >= 0, got nan",
        ),
        (dict(optim=Optim(momentum=1.0)), "optim.momentum: expected below 1, got 1"),
        (dict(optim=Optim(milestones=(1.5,))), "optim.milestones: expected fractions"),
        (dict(views=Views(aspect=(1.1, 2.0))), "views.aspect: expected 0 < low <= 1"),
        (dict(views=Views(area=(0.6, 0.5))), "views.area: expected"),
        (dict(terms={"a": Term(weight=Scalar(-1.0))}), "terms.a.weight.value"),
        (dict(terms={"a": Term(weight=Scalar(1.0, 2.0))}), "terms.a.weight.end"),
        (dict(compute=config.Compute(how="pmap", fsdp=2)), "compute.fsdp: expected 1"),
        (dict(teacher=Teacher(steps=10)), "teacher.optim.warmup: expected fewer than"),
        (
            dict(teacher=Teacher(model=Model(weights="x", adapt=("stem", "head")))),
            r"teacher.model.adapt: expected no head, .* got \('stem', 'head'\)",
        ),
        (
            dict(teacher=Teacher(also=(Member(model=HEADLESS),))),
            "teacher.also.0.model.adapt: expected no head",
        ),
        (
            dict(teacher=Teacher(run="runs/x", model=Model(weights="y"))),
            "teacher.run: expected none beside teacher.model.weights, got 'runs/x'",
        ),
        (dict(model=Model(adapt=("stem",))), "^model.adapt: expected none without"),
        (
            dict(teacher=Teacher(model=Model(adapt=("stem",)))),
            "teacher.model.adapt: expected none without teacher.model.weights",
        ),
        (dict(teacher=Teacher(weight=0.5)), "teacher.weight: expected 1 without teach"),
        (dict(teacher=Teacher(temperature=2.0)), "teacher.temperature: expected 1 wi"),
    ],
)
def test_fields_that_cannot_be_run_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(Run(), **changes).check()


def test_every_field_is_documented():
    """The docstring under a field is its text in --help. A field that is a table of
    fields takes the table's."""
    import ast
    import inspect

    folder = pathlib.Path(inspect.getfile(config)).parent
    trees = [ast.parse(file.read_text()) for file in folder.glob("*.py")]
    nodes = [node for tree in trees for node in tree.body]
    classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
    tables = {c.name for c in classes}
    seen = 0
    for cls in classes:
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                kind = ast.unparse(field.annotation).removesuffix(" | None")
                assert kind in tables or isinstance(after, ast.Expr), (
                    f"{cls.name}.{ast.unparse(field.target)}"
                )
                seen += 1
    assert seen > 40


HELPER = """
SLOPE = {slope}

def make():
    return SLOPE

class Maker:
    def __call__(self):
        return SLOPE
"""
MINE = """
import functools
import helper

make = helper.make
part = functools.partial(helper.make)
maker = helper.Maker()
own = lambda: 3
"""


def test_files_of_the_same_name_do_not_share_what_they_import(tmp_path):
    folders = (("own_a", 1), ("own_b", 5))
    for folder, slope in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
        (tmp_path / folder / "helper.py").write_text(HELPER.format(slope=slope))
        mine = MINE.replace("import helper", f"from {folder} import helper")
        (tmp_path / folder / "mine.py").write_text(mine)
    for folder, slope in folders:
        place = tmp_path / folder
        both = [place / "mine.py", place / "helper.py"]
        for name in ("make", "part", "maker"):
            reference = f"{place}/mine.py:{name}"
            assert load_function(reference, "x")() == slope
            assert source_files(reference, "x") == both
        assert source_files(f"{place}/mine.py:own", "x") == both[:1]
