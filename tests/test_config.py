"""Configs: to JSON and back, errors that name the field."""

import copy
import dataclasses
import json
import math
import pathlib
import pickle
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest

from kdjax import config
from kdjax.config import (
    Cache,
    ConfigError,
    Data,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    MovingAverage,
    Optim,
    Run,
    Scalar,
    Term,
    TrainFirst,
    Views,
    load_function,
    set_fields,
    source_files,
)
from kdjax.presets import digits, digits_teacher

HEADLESS = ModelConfig("resnet", weights="x", adapt=("head",), resolution=8)
TWO = FromRun("x"), FromRun("y")


def test_a_config_survives_json():
    run = digits(
        teacher=FromRun("x"),
        terms={"a": Term(weight=Scalar(1.0, 0.0, "cosine")), "b": config.HARD},
        baselines=("labels",),
        trackers=("tensorboard",),
    )
    for each in (run, digits(), config.labels_only(run, teacher=None)):
        assert config.from_dict(json.loads(json.dumps(config.to_dict(each)))) == each


def test_the_defaults_are_good():
    digits().check()
    config.labels_only(digits(), teacher=None).check()


def change(path, value, values=None):
    """The default run as plain values, or `values`, with one of its fields changed."""
    values = config.to_dict(digits()) if values is None else values
    at = values
    *parents, last = path.split(".")
    for name in parents:
        at = at[int(name) if isinstance(at, list) else name]
    at[last] = value
    return values


def changed(fields):
    """The default run with several fields changed, by dotted name."""
    values = config.to_dict(digits())
    for path, value in fields.items():
        change(path, copy.deepcopy(value), values)
    return config.from_dict(values)


def test_a_field_that_is_younger_than_a_config_has_its_default():
    run = digits(steps=7, teacher=Ensemble((digits_teacher(), FromRun("x"))))
    values = config.to_dict(run)
    del values["batch"], values["teacher"]["mean"], values["terms"]["soft"]["loss"]
    del values["teacher"]["members"][1]["step"]
    others = {"given": {"splits": "a line"}, "content": {"train": "a fingerprint"}}
    assert config.from_dict({**values, **others}) == run


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("optim.rate", 1.0, "optim.rate: expected a known field"),
        ("optim.lr", "fast", "optim.lr: expected a finite number, got 'fast'"),
        ("optim.lr", True, "optim.lr: expected a finite number, got True"),
        ("steps", 1.5, "steps: expected a value of type int, got 1.5"),
        ("views.mode", "x", "views.mode: expected one of"),
        ("views", 3, "views: expected a table of fields, got 3"),
        ("terms.soft.weight", "2", "weight: expected a finite number or a table of f"),
        ("terms.soft.weight", math.nan, "weight: expected a finite number or a table"),
        ("terms.soft.temperature", [2], "expected a finite number or a table of field"),
        ("baselines", ["labels", "x"], "baselines: expected one of"),
    ],
)
def test_bad_json_is_named(path, value, message):
    with pytest.raises(ConfigError, match=message):
        config.from_dict(change(path, value))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(seeds=0), "seeds: expected >= 1 and <= 65536, got 0"),
        (dict(steps="100"), "steps: expected a value of type int, got '100'"),
        (dict(steps=100.0), "steps: expected a value of type int, got 100.0"),
        (dict(views=Views(area=(0.5,))), "views.area: expected 2 values"),  # type: ignore
        (dict(terms={"a": Term(weight="0.5")}), "terms.a.weight: expected a finite"),  # type: ignore
        (dict(terms=[Term()]), "terms: expected a table"),
        (
            dict(optim=Optim(schedule="steps", milestones=(0.5, 0.50001))),
            "optim.milestones: expected steps one after another",
        ),
        (
            dict(seed=2**31 - 1, seeds=2),
            "seeds: expected a last seed of at most 2147483647, got 2147483648",
        ),
        (dict(seed=-1), "seed: expected >= 0, got -1"),
        (dict(terms={}), "terms: expected at least one term"),
        (dict(teacher=None), "terms.soft.teacher: expected labels, without a teacher"),
        (
            dict(optim=Optim(lr=float("nan"))),
            "optim.lr: expected a finite number, got nan",
        ),
        (
            dict(optim=Optim(momentum=1.0)),
            "optim.momentum: expected a number >= 0 and < 1",
        ),
        (
            dict(optim=Optim(milestones=(1.5,))),
            "optim.milestones: expected a number > 0 and < 1",
        ),
        (dict(views=Views(aspect=(1.1, 2.0))), "views.aspect: expected 0 < low <= 1"),
        (dict(views=Views(area=(0.6, 0.5))), "views.area: expected"),
        (dict(terms={"a": Term(weight=Scalar(-1.0))}), "terms.a.weight.value"),
        (dict(terms={"a": Term(weight=Scalar(1.0, 2.0))}), "terms.a.weight.end"),
        (dict(compute=config.Compute(how="pmap", fsdp=2)), "compute.fsdp: expected 1"),
        (
            dict(teacher=digits_teacher(steps=10)),
            "teacher.optim.warmup: expected fewer than",
        ),
        (
            dict(teacher=FromWeights(HEADLESS)),
            r"teacher.model.adapt: expected no head: .* got \('head',\)",
        ),
        (
            dict(teacher=Ensemble((FromRun("x"), FromWeights(HEADLESS)))),
            "teacher.members.1.model.adapt: expected no head",
        ),
        (
            dict(teacher=FromWeights(ModelConfig("resnet8"))),
            "teacher.model.weights: expected published weights, got ''",
        ),
        (
            dict(teacher=TrainFirst(ModelConfig("resnet8", weights="y"))),
            "teacher.model.weights: expected none with teacher.kind train .* got 'y'",
        ),
        (
            dict(model=ModelConfig("resnet8", adapt=("stem",))),
            "^model.adapt: expected none without",
        ),
        (dict(teacher=FromRun()), "teacher.run: expected a name, got ''"),
        (dict(teacher=Ensemble((FromRun("x"),))), "members: expected two teachers"),
        (dict(teacher=Ensemble((digits_teacher(),) * 2)), "at most one of kind train"),
        (dict(teacher=Ensemble(TWO, weights=(1.0,))), "teacher.weights: expected one"),
        (dict(teacher=Ensemble(TWO, mean_at=2.0)), "teacher.mean_at: expected 0 with"),
        (
            dict(teacher=Ensemble((FromRun("x"), FromRun("y", cache=Cache("z"))))),
            "teacher.members.1.cache.path: expected none",
        ),
        (dict(data=Data()), r"data.name: expected folder:PATH .* got ''"),
        (dict(model=ModelConfig()), "model.name: expected a name, got ''"),
    ],
)
def test_fields_that_cannot_be_run_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(digits(), **changes).check()


MODES = "one of ['fixed', 'independent', 'consistent', 'function_matching']"
NO_HEAD = "no head: the head of a teacher is not trained"


@pytest.mark.parametrize(
    "changes, field, expected, got",
    [
        (dict(seeds=0), "seeds", ">= 1 and <= 65536", 0),
        (dict(steps="100"), "steps", "a value of type int", "100"),
        (dict(views=Views(mode="x")), "views.mode", MODES, "x"),  # type: ignore
        (dict(optim=Optim(lr=-1.0)), "optim.lr", "a number >= 0", -1.0),
        (
            dict(teacher=Ensemble((FromRun("x"), FromWeights(HEADLESS)))),
            "teacher.members.1.model.adapt",
            NO_HEAD,
            ("head",),
        ),
    ],
)
def test_errors_have_a_field_what_was_expected_and_what_came(
    changes, field, expected, got
):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(digits(), **changes).check()
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
TABLES = ("terms", "strategy", "teacher", "networks")
CHOICES = [x for x in literals(Run) if not x.startswith(TABLES)]


@pytest.mark.parametrize(
    "field", [*CHOICES, "terms.soft.weight.schedule", "teacher.precision"]
)
def test_another_value_of_a_choice_is_refused(field):
    """The choices stand in the types alone."""
    run = replaced(digits(), field.split("."), "sideways")
    with pytest.raises(ConfigError) as error:
        run.check()
    assert (error.value.field, error.value.got) == (field, "sideways")
    assert error.value.expected.startswith("one of [")


def test_the_choices_are_found():
    assert {"views.mode", "optim.name", "model.norm", "baselines"} <= {*CHOICES}


def at(index, value):
    """Jitter of one kind alone."""
    return [value if i == index else 0.0 for i in range(4)]


RUN = {"teacher": config.to_dict(FromRun("runs/x"))}
AVERAGE = {"teacher": config.to_dict(MovingAverage())}
MEAN = {"teacher": config.to_dict(Ensemble(TWO, mean="probabilities"))}
LONG = {"steps": 300}
# A field, the last values within its bounds, and the first ones beyond.
BOUNDS = [
    ("seed", [0, 2**31 - 1], [-1, 2**31], {"seeds": 1}),
    ("seeds", [2], [3], {"seed": 2**31 - 2}),
    *[
        (name, [1], [0], {})
        for name in ("seeds", "batch", "evaluate_every", "checkpoint_every")
    ],
    ("log_every", [1], [0], {}),
    ("steps", [1, 10**8], [0, 10**8 + 1], {"optim.warmup": 0}),
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
    ("terms.soft.temperature.value", [1e-6, 1e6], [0.0, -1.0, 0.9e-6, 1e30], {}),
    (
        "terms.soft.temperature.end",
        [1e-6, 1e6],
        [0.0, -1.0, 0.9e-6, 1e30],
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
    ("views.crop_fraction", [1e-9, 1.0], [0.0, 1.001], {}),
    *[
        ("views.jitter", [[0.0] * 4, at(i, x)], [at(i, -1e-9), at(i, x + 0.001)], {})
        for i, x in enumerate([1.0, 1.0, 1.0, 0.5])
    ],
    (
        "views.randaugment",
        [[0, 0], [1, 10], [100, 1]],
        [[101, 1], [-1, 5], [1, -1], [1, 11]],
        {},
    ),
    ("views.evaluation_crop", [0.0, 1.0], [0.999, -1.0], {}),
    ("model.depth", [8, 14], [2, 7, 9], {}),
    ("model.width", [1], [0], {}),
    ("model.resolution", [4, 2**14], [3, 2**14 + 1], {}),
    ("model.width", [1, 2**16], [0, 2**16 + 1], {}),
    ("data.store", [0, 2**14], [-1, 2**14 + 1], {}),
    ("teacher.steps", [1], [0], {"teacher.optim.warmup": 0}),
    ("teacher.optim.warmup", [0, 299], [-1, 300], {"teacher.steps": 300}),
    ("teacher.decay", [0.0, 0.9999], [-1e-9, 1.0], AVERAGE),
    ("teacher.step", [0, 1], [-1], RUN),
    ("teacher.cache.epochs", [0.0], [-1e-9], {"teacher.cache.path": "store"}),
    ("teacher.cache.top_k", [0], [-1], {"teacher.cache.path": "store"}),
    (
        "teacher.cache.crops",
        [0, 1],
        [-1],
        {"teacher.cache.path": "store", "views.mode": "fixed"},
    ),
    ("teacher.weights", [[1e-9, 1.0]], [[0.0, 1.0], [1.0, -1.0]], MEAN),
    ("teacher.temperatures", [[1e-6, 1e6]], [[9e-7, 1.0], [1.0, 2e6]], MEAN),
    ("teacher.members.0.step", [0, 1], [-1], MEAN),
    ("teacher.mean_at", [0.0, 1e-6, 1e6], [-1.0, 1e-30, 1e30], MEAN),
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


def test_a_number_is_a_constant():
    assert Term(weight=0.5, temperature=2) == Term(
        weight=Scalar(0.5), temperature=Scalar(2.0)
    )
    values = change("terms.soft.weight", 0.5, change("terms.soft.temperature", 3))
    term = config.from_dict(values).terms["soft"]
    assert (term.weight, term.temperature) == (Scalar(0.5), Scalar(3.0))


PATHS = [
    ({"run": "x"}, FromRun("x")),
    ({"run": "x", "step": "3"}, FromRun("x", step=3)),
    ({"decay": "0.5"}, MovingAverage(0.5)),
    ({"steps": "7"}, digits_teacher(steps=7)),
    ({"kind": "average"}, MovingAverage()),
    (
        {"precision": "bfloat16", "model.weights": "y"},
        FromWeights(ModelConfig(weights="y"), "bfloat16"),
    ),
    (
        {"model.name": "resnet20", "model.weights": "y", "model.norm": "batch"},
        FromWeights(ModelConfig("resnet20", norm="batch", weights="y")),
    ),
    (
        {"kind": "ensemble", "members.0.run": "x", "members.1.run": "y"},
        Ensemble(TWO),
    ),
    (
        {"members.0.model.weights": "y"},
        Ensemble((FromWeights(ModelConfig(weights="y")),)),
    ),
]


@pytest.mark.parametrize("changes, teacher", PATHS, ids=[str(x) for x, _ in PATHS])
def test_fields_choose_the_kind_of_a_teacher(changes, teacher):
    paths = [(f"teacher.{name}", [value]) for name, value in changes.items()]
    assert set_fields(digits(), paths).teacher == teacher


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("teacher.kind", "runn", r"teacher.kind: did you mean 'run'\? expected one of"),
        ("teacher.weight", "1", r"teacher.weight: did you mean 'weights'\?"),
        ("teacher.members.0.decay", "1", "teacher.members.0.decay: expected one of"),
    ],
)
def test_a_field_of_no_kind_of_teacher_is_refused(path, value, message):
    with pytest.raises(ConfigError, match=message):
        set_fields(digits(), [(path, [value])])


def test_a_new_term_needs_its_loss():
    with pytest.raises(ConfigError, match="^terms.sotf: did you mean 'soft'?"):
        set_fields(digits(), [("terms.sotf.weight", ["0.5"])])
    paths = [("terms.hard.teacher", ["labels"]), ("terms.hard.loss", ["logit_mse"])]
    assert set_fields(digits(), paths).terms["hard"].teacher == "labels"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["strategy.function", "strategy.controller"],
            "strategy.function: expected none beside strategy.controller, which makes "
            "strategy.kind offline",
        ),
        (
            ["strategy.project-gradients", "strategy.function"],
            "strategy.project-gradients: expected none beside strategy.function, which "
            "makes strategy.kind custom",
        ),
        (["teacher.steps", "teacher.run"], "teacher.steps: expected none beside teach"),
    ],
)
def test_a_field_that_another_kind_discards_is_refused(paths, message):
    words = {"strategy.project-gradients": ["True"], "teacher.steps": ["5"]}
    with pytest.raises(ConfigError, match=message):
        set_fields(digits(), [(path, words.get(path, ["x"])) for path in paths])


def integers(kind, at=""):
    """The dotted paths of all integers in a config."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(base):
            yield from integers(base, f"{at}{name}.")
        elif base is int:
            yield f"{at}{name}"


INTEGERS = list(integers(Run))


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 10**30])
def test_integers_beyond_int32_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: expected .*, got {value}$"):
        changed({field: value}).check()


def test_every_integer_is_found():
    assert {"steps", "data.store", "model.depth", "optim.warmup"} < {*INTEGERS}


@pytest.mark.parametrize(
    "scalar, text",
    [
        (Scalar(1.0, over=(0.0, 0.5)), r"at.over: expected \(0, 1\) with schedule"),
        (Scalar(1.0, 0.0, "linear", (0.6, 0.5)), "at.over: expected a beginning"),
    ],
)
def test_a_part_of_the_run_that_is_none_is_refused(scalar, text):
    with pytest.raises(ConfigError, match=f"^{text}"):
        scalar.check("at")


def test_a_table_in_place_of_a_part_is_refused():
    """Files have tables; in Python they have no methods."""
    parts = {
        "optim": ({"lr": 1}, "Optim"),
        "teacher": ({"run": "x"}, "FromRun"),
        "terms": ({"soft": {"loss": "softmax_kl"}}, "Term"),
    }
    for name, (table, kind) in parts.items():
        at = "terms.soft" if name == "terms" else name
        with pytest.raises(ConfigError) as error:
            digits(**{name: table}).check()
        assert str(error.value) == f"{at}: expected a kdjax.config.{kind}, got dict"
    with pytest.raises(ConfigError, match=r"^teacher.members.1: expected .* got dict$"):
        digits(teacher=Ensemble((FromRun("x"), {"run": "y"}))).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value, shown",
    [
        (config.Scalar(3.0), "Scalar(value=3.0)"),
        (config.Term("dkd"), "Term(loss='dkd')"),
        (pathlib.PurePosixPath("gs://bucket/run"), "Path('gs://bucket/run')"),
        (pathlib.PurePosixPath("runs/mine"), "Path('runs/mine')"),
        ({1: [2]}, "{1: [2]}"),
        ("a" * 1000, "'" + "a" * 119 + "..."),
    ],
)
def test_a_value_in_an_error_is_one_short_line(value, shown):
    assert str(ConfigError("field", "a number", value)) == (
        f"field: expected a number, got {shown}"
    )


def test_a_path_of_a_url_has_both_slashes():
    expected = "^run: .*, got 'gs://bucket/run'$"
    for url in ("gs://bucket/run", pathlib.PurePosixPath("gs://bucket/run")):
        with pytest.raises(ConfigError, match=expected):
            config.require_local(url, "run")
