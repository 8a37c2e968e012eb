"""Configs: to JSON and back, errors that name the field."""

import copy
import dataclasses
import json
import pathlib
import pickle
from typing import Literal, get_args, get_origin, get_type_hints

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
    set_fields,
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


def change(path, value, values=None):
    """The default run as plain values, or `values`, with one of its fields changed."""
    values = config.to_dict(Run()) if values is None else values
    at = values
    *parents, last = path.split(".")
    for name in parents:
        at = at[int(name) if isinstance(at, list) else name]
    at[last] = value
    return values


def changed(fields):
    """The default run with several fields changed, by dotted name."""
    values = config.to_dict(Run())
    for path, value in fields.items():
        change(path, copy.deepcopy(value), values)
    return config.from_dict(values)


def test_a_field_that_is_younger_than_a_config_has_its_default():
    run = Run(steps=7, teacher=Teacher(also=(Member(run="x"),), steps=9))
    values = config.to_dict(run)
    del values["batch"], values["teacher"]["mean"], values["terms"]["soft"]["loss"]
    del values["teacher"]["also"][0]["step"]
    others = {"given": {"splits": "a line"}, "content": {"train": "a fingerprint"}}
    assert config.from_dict({**values, **others}) == run


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


MODES = "one of ['fixed', 'independent', 'consistent', 'function_matching']"
NO_HEAD = "no head, which nobody would train"


@pytest.mark.parametrize(
    "changes, field, expected, got",
    [
        (dict(seeds=0), "seeds", "at least 1", 0),
        (dict(steps="100"), "steps", "a value of type int", "100"),
        (dict(views=Views(mode="x")), "views.mode", MODES, "x"),  # type: ignore
        (dict(optim=Optim(lr=-1.0)), "optim.lr", "a number >= 0", -1.0),
        (
            dict(teacher=Teacher(also=(Member(model=HEADLESS),))),
            "teacher.also.0.model.adapt",
            NO_HEAD,
            ("head",),
        ),
    ],
)
def test_errors_have_a_field_what_was_expected_and_what_came(
    changes, field, expected, got
):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(Run(), **changes).check()
    raised = error.value
    assert (raised.field, raised.expected, raised.got) == (field, expected, got)
    assert str(raised) == f"{field}: expected {expected}, got {got!r}"


ERRORS = [
    (ConfigError("a.b", "a number", 3), "expected a number, got 3"),
    (ConfigError("a.b", "c", "d", hint="or 'e'?"), "or 'e'? expected c, got 'd'"),
    (ConfigError("a.b", "a folder", shown="none"), "expected a folder, got none"),
    (ConfigError("a.b", reason="not: JSON"), "not: JSON"),
]


@pytest.mark.parametrize("error, text", ERRORS, ids=[text for _, text in ERRORS])
@pytest.mark.parametrize(
    "names, field",
    [
        (None, "model.a.b"),
        ({"a": "c"}, "model.c.b"),
        ({"a": "a", "b": "x"}, "model.a.b"),
        ({"b": "c"}, "a.b"),
        ({}, "a.b"),
    ],
)
def test_an_error_moves_beneath_a_field(error, text, names, field):
    with pytest.raises(ConfigError) as raised, config.beneath("model", names):
        raise error
    moved = raised.value
    assert (moved.field, str(moved)) == (field, f"{field}: {text}")
    assert (moved.expected, moved.got) == (error.expected, error.got)


def test_an_error_survives_pickling():
    for error, _ in ERRORS:
        copied = pickle.loads(pickle.dumps(error))
        assert (str(copied), copied.field) == (str(error), error.field)


def literals(hint, path=""):
    """The dotted names of the fields of a dataclass that are a choice."""
    for name, inner in get_type_hints(hint).items():
        members = [inner, *get_args(inner)]
        if any(get_origin(x) is Literal for x in members):
            yield f"{path}{name}"
        for table in filter(dataclasses.is_dataclass, members):
            yield from literals(table, f"{path}{name}.")


def replaced(value, names, new):
    """A config with the field that `names` lead to replaced, whatever its type."""
    if not names:
        return (new,) if isinstance(value, tuple) else new
    name, *rest = names
    if isinstance(value, dict):
        return {**value, name: replaced(value[name], rest, new)}
    return dataclasses.replace(
        value, **{name: replaced(getattr(value, name), rest, new)}
    )


# Tables by the user's names, lists and sums have no one path.
TABLES = ("terms", "strategy", "teacher.also")
CHOICES = [x for x in literals(Run) if not x.startswith(TABLES)]


@pytest.mark.parametrize("field", [*CHOICES, "terms.soft.weight.schedule"])
def test_another_value_of_a_choice_is_refused(field):
    """The choices stand in the types alone."""
    run = replaced(Run(), field.split("."), "sideways")
    with pytest.raises(ConfigError) as error:
        run.check()
    assert (error.value.field, error.value.got) == (field, "sideways")
    assert error.value.expected.startswith("one of [")


def test_the_choices_are_found():
    assert {"views.mode", "optim.name", "teacher.cache.tail", "baselines"} <= {*CHOICES}


def at(index, value):
    """Jitter of one kind alone."""
    return [value if i == index else 0.0 for i in range(4)]


SECOND = {"teacher.also": [dataclasses.asdict(Member(run="runs/x"))]}
LONG = {"steps": 300}
# A field, the last values within its bounds, and the first ones beyond.
BOUNDS = [
    ("seed", [0, 2**31 - 1], [-1, 2**31], {}),
    *[
        (name, [1], [0], {})
        for name in ("seeds", "batch", "evaluate_every", "checkpoint_every")
    ],
    ("log_every", [1], [0], {}),
    ("steps", [1], [0], {"optim.warmup": 0}),
    ("optim.warmup", [0, 299], [-1, 300], LONG),
    ("optim.lr", [0.0], [-1e-9], {}),
    ("optim.wd", [0.0], [-1e-9], {}),
    ("optim.clip", [0.0], [-1e-9], {}),
    ("optim.gamma", [0.0], [-1e-9], {}),
    ("optim.momentum", [0.0, 0.999], [-1e-9, 1.0], {}),
    ("optim.milestones", [[0.001], [0.999]], [[0.0], [1.0], [-0.1], [1.1]], {}),
    # Drops after steps 201, 202 of 300; the warm-up ends at 200.
    (
        "optim.milestones",
        [[201 / 300, 202 / 300]],
        [[200 / 300, 202 / 300], [202 / 300, 202 / 300], [202 / 300, 201 / 300]],
        {**LONG, "optim.schedule": "steps"},
    ),
    ("terms.soft.weight.value", [0.0], [-1e-9], {}),
    ("terms.soft.weight.end", [0.0], [-1e-9], {"terms.soft.weight.schedule": "cosine"}),
    ("terms.soft.temperature.value", [1e-9], [0.0, -1.0], {}),
    (
        "terms.soft.temperature.end",
        [1e-9],
        [0.0, -1.0],
        {"terms.soft.temperature.schedule": "linear"},
    ),
    ("compute.data", [0, 1], [-1], {}),
    ("compute.fsdp", [1], [0], {}),
    ("compute.fsdp", [1], [2], {"compute.how": "pmap"}),
    ("compute.steps_per_call", [0], [-1], {}),
    ("data.classes", [0, 2], [1, -1], {}),
    ("data.store", [0], [-1], {}),
    ("data.workers", [0], [-1], {}),
    ("views.area", [[1e-9, 1.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 1.001]], {}),
    ("views.area", [[1.0, 1.0]], [[0.6, 0.5]], {}),
    ("views.aspect", [[1.0, 1.0], [1e-9, 1.0]], [[0.0, 1.0], [1.01, 2.0]], {}),
    ("views.aspect", [[0.5, 1.0]], [[0.5, 0.99]], {}),
    ("views.share", [1e-9, 1.0], [0.0, 1.001], {}),
    *[
        ("views.jitter", [[0.0] * 4, at(i, x)], [at(i, -1e-9), at(i, x + 0.001)], {})
        for i, x in enumerate([1.0, 1.0, 1.0, 0.5])
    ],
    ("views.randaugment", [[0, 0], [1, 10]], [[-1, 5], [1, -1], [1, 11]], {}),
    ("views.central", [0.0, 1.0], [0.999, -1.0], {}),
    ("model.depth", [8, 14], [2, 7, 9], {}),
    ("model.width", [1], [0], {}),
    ("model.resolution", [4], [3], {}),
    ("teacher.steps", [1], [0], {"teacher.optim.warmup": 0}),
    ("teacher.optim.warmup", [0, 299], [-1, 300], {"teacher.steps": 300}),
    ("teacher.decay", [0.0, 0.9999], [-1e-9, 1.0], {"teacher.kind": "average"}),
    ("teacher.step", [0, 1], [-1], {"teacher.run": "runs/x"}),
    ("teacher.cache.epochs", [0.0], [-1e-9], {"teacher.cache.path": "store"}),
    ("teacher.cache.top_k", [0], [-1], {"teacher.cache.path": "store"}),
    (
        "teacher.cache.crops",
        [0, 1],
        [-1],
        {"teacher.cache.path": "store", "views.mode": "fixed"},
    ),
    ("teacher.weight", [1e-9], [0.0, -1.0], SECOND),
    ("teacher.temperature", [1e-9], [0.0, -1.0], SECOND),
    ("teacher.also.0.weight", [1e-9], [0.0, -1.0], SECOND),
    ("teacher.also.0.temperature", [1e-9], [0.0, -1.0], SECOND),
    ("teacher.also.0.step", [0, 1], [-1], SECOND),
    ("teacher.mean_at", [0.0], [-1e-9], {**SECOND, "teacher.mean": "probabilities"}),
]


@pytest.mark.parametrize(
    "field, within, beyond, also", BOUNDS, ids=[x[0] for x in BOUNDS]
)
def test_bounds_are_at_the_last_value_that_runs(field, within, beyond, also):
    for value in within:
        changed({**also, field: value}).check()
    for value in beyond:
        with pytest.raises(ConfigError, match=f"^{field}: expected"):
            changed({**also, field: value}).check()


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


def test_a_new_term_needs_its_loss():
    with pytest.raises(ConfigError, match="^terms.sotf: did you mean 'soft'?"):
        set_fields(Run(), [("terms.sotf.weight", ["0.5"])])
    paths = [("terms.hard.teacher", ["labels"]), ("terms.hard.loss", ["logit_mse"])]
    assert set_fields(Run(), paths).terms["hard"].teacher == "labels"
