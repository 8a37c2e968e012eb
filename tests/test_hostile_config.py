"""Values that no field can hold: one short line that names the field, never more."""

import copy
import dataclasses
import json
import random

import pytest

from kdjax import presets, setup
from kdjax.config import (
    ConfigError,
    Custom,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    Network,
    Term,
    from_dict,
    set_fields,
    to_dict,
)
from kdjax.core import runlog

MOST = 300


def nested(make, times):
    value = make(None)
    for _ in range(times):
        value = make(value)
    return value


LISTS = nested(lambda x: [x], 3_000)
TABLES = nested(lambda x: {"a": x}, 3_000)
VALUES = [
    *(None, True, 0, -1, 2**31, 2**63, -(2**63), 10**400, 10**5_000, 1e39, 1e308),
    *(
        float("nan"),
        float("inf"),
        -0.0,
        1.5,
        "",
        "x" * 300,
        "x" * 100_000,
        "x/" * 3_000,
    ),
    *("\0", "a\0b", "a\nb", "\ud800", "☃", "~no_such_user/x", "../x", "s3://x", "nan"),
    *([], {}, [1], [[1]], {"a": 1}, {"": 1}, {1: 2}, {"x" * 9_000: 1}, [None] * 10_000),
    *(LISTS, TABLES, {"value": 2**63}, "stage:x", "file.py:function"),
]


def bases():
    run = presets.digits()
    weights = FromWeights(ModelConfig("resnet", weights="x.npz"))
    yield run
    yield presets.cifar10()
    yield dataclasses.replace(run, teacher=weights)
    yield dataclasses.replace(run, teacher=Ensemble((FromRun("a"), FromRun("b"))))
    peers = {"peer": Network(ModelConfig("resnet"))}
    mutual = Custom("mutual", options={"peers": 2})
    yield dataclasses.replace(run, strategy=mutual, networks=peers)
    term = Term("dkd", temperature=None, options={"beta": 2.0})
    yield dataclasses.replace(run, terms={"x": term})


def paths(table, before=()):
    for name, value in table.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from paths(value, (*before, name))


def put(table, path, value):
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value


def try_config(values):
    """Read, checked, written and read again, or the text of its error."""
    try:
        run = from_dict(values)
        run.check()
        setup.check_names(run)
        assert from_dict(json.loads(runlog.dump(to_dict(run)))) == run
    except ConfigError as error:
        return str(error)
    return ""


def test_every_value_in_every_field_is_taken_or_refused_in_one_line():
    """A sample; all pairs are some 10,000."""
    draw, refused = random.Random(0), 0
    tables = [to_dict(base) for base in bases()]
    for _ in range(400):
        values = copy.deepcopy(draw.choice(tables))
        path = draw.choice(list(paths(values)))
        put(values, path, draw.choice(VALUES))
        text = try_config(values)
        refused += bool(text)
        assert "\n" not in text and len(text) <= MOST, (path, len(text), text[:200])
    assert refused > 250


@pytest.mark.full
def test_all_values_in_all_fields():
    for number, base in enumerate(bases()):
        table = to_dict(base)
        for path in paths(table):
            # Most fields are those of every base.
            for value in VALUES[number % 6 :: 6]:
                values = copy.deepcopy(table)
                put(values, path, value)
                text = try_config(values)
                assert "\n" not in text and len(text) <= MOST, (path, text[:200])


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("optim.lr", 10**400, "optim.lr: expected a finite number, got 1000"),
        ("optim.lr", 10**5_000, "optim.lr: expected a finite number, got a very long"),
        ("optim.lr", 1e39, "optim.lr: expected a finite number, got 1e.39"),
        ("model.width", 2**63, "model.width: expected an integer of 32 bits, got 922"),
        ("steps", 2**31, "steps: expected an integer of 32 bits, got 2147483648"),
        ("workdir", "a\0b", r"workdir: expected text without control .*got 'a\\x00b'"),
        ("workdir", "\ud800", "workdir: expected text without control characters"),
        ("name", "x" * 5_000, "name: expected text of at most 4096 characters, got 5"),
        ("terms", {"x" * 300: {}}, "terms: expected names of at most 100 characters"),
        ("terms", {"x\0": {}}, "terms: expected text without control characters"),
        (
            "terms.soft.options",
            LISTS,
            "options: expected a table, got ",
        ),
        ("strategy.kind", [1], "strategy.kind: .*expected one of"),
    ],
    ids=map(str, range(12)),
)
def test_the_field_is_named(path, value, text):
    values = to_dict(presets.digits())
    put(values, path.split("."), value)
    with pytest.raises(ConfigError, match=text) as error:
        from_dict(values)
    assert len(str(error.value)) <= MOST


@pytest.mark.parametrize(
    "field", ["workdir", "teacher.run", "teacher.cache.path", "model.weights"]
)
@pytest.mark.parametrize("path", ["x" * 300, "a/" + "x" * 300, "~no_such_user/x"])
def test_a_path_that_no_file_can_have(field, path):
    base = presets.digits(teacher=FromRun("a"))
    run = set_fields(base, [(field, [path])])
    text = f"{field}: expected (names of at most 255 bytes|a home folder that exists)"
    with pytest.raises(ConfigError, match=text):
        run.check()


@pytest.mark.parametrize(
    "word",
    ["9" * 5_000, "1e400", "[" * 9_000, "-" * 9_000 + "1", "a\0b", "x" * 9_000],
    ids=["digits", "infinite", "nested", "signs", "control", "long"],
)
@pytest.mark.parametrize("path", ["steps", "optim.lr", "data.range"])
def test_words_of_a_command_line(path, word):
    with pytest.raises(ConfigError) as error:
        set_fields(presets.digits(), [(path, [word])]).check()
    text = str(error.value)
    assert text.startswith(path.split(".")[0]) and "\n" not in text
    assert len(text) <= MOST
