"""Strategies of the user's own: arguments, and errors with the file and line."""

import jax
import pytest

from kdjax.config import ConfigError, Custom, Term
from kdjax.core.types import Model
from kdjax.presets import digits
from kdjax.strategies import kernels, make_strategy, weighting
from kdjax.strategies.offline import offline

CODE = """
from kdjax.config import Optim
from kdjax.strategies import Strategy


def slip(*arguments):
    return arguments.nowhere


def made(student, *, broken: str = "none", steps, classes):
    if broken == "function":
        slip()
    parts = {"init": dict, "loss": dict, "schedules": lambda step: {}}
    if broken in parts:
        parts[broken] = slip
    return Strategy(**parts, labels=(steps, classes) == (7, 10))


def briefly(student):
    # Its warm-up of 200 steps is longer than the run.
    return Strategy(dict, dict, optim={"critic": Optim()})


def no_optim(student):
    return Strategy(dict, dict, optim={"critic": 1e-3})


def no_loss(student):
    return Strategy(dict, None)


def wrong_arguments(student):
    def loss(params, state):
        return {}

    return Strategy(dict, loss)


def words(student):
    return Strategy(dict, dict, lambda step: {"weight": "much"})


def falling(student):
    return Strategy(dict, dict, optim={"student": Optim(lr=-1.0, warmup=0)})


def no_student():
    return Strategy(dict, dict)


def other_file(student):
    import json

    return json.loads("{")
"""
STUDENT = Model(lambda *_: {}, lambda *_, **__: None)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A strategy of the file, by name and options."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)

    def make(name, **options):
        run = digits(strategy=Custom(f"mine.py:{name}", options=options), steps=7)
        return make_strategy(run, STUDENT, None, classes=10)

    return make


def line(text):
    return 1 + CODE.splitlines().index(text)


def refused(call, *arguments):
    with pytest.raises(ConfigError) as error:
        call(*arguments)
    return str(error.value)


SLIP = "AttributeError: 'tuple' object has no attribute 'nowhere' (mine.py:"


def test_it_gets_what_it_has_parameters_for(make):
    assert make("made").labels


def test_an_error_in_schedules_has_file_and_line(make):
    want = f"strategy.function: schedules of made raised {SLIP}"
    assert refused(lambda: make("made", broken="schedules")).startswith(want)


@pytest.mark.parametrize("part", ["init", "loss"])
def test_an_error_in_a_part_has_file_and_line(make, part):
    strategy = make("made", broken=part)
    at = line("    return arguments.nowhere")
    want = f"strategy.function: {part} of made raised {SLIP}{at})"
    assert refused(getattr(strategy, part), 0) == want
    assert refused(jax.jit(getattr(strategy, part)), 0) == want


def test_an_error_in_the_function_has_file_and_line(make):
    at = line("    return arguments.nowhere")
    want = f"strategy.function: made raised {SLIP}{at})"
    assert refused(lambda: make("made", broken="function")) == want


def test_the_line_of_the_user_and_not_of_the_library(make):
    error = refused(make, "other_file")
    at = line('    return json.loads("{")')
    assert "JSONDecodeError: Expecting property name" in error
    assert error.endswith(f"(mine.py:{at})")


def test_a_wrong_signature_has_the_line_of_the_definition(make):
    error = refused(make("wrong_arguments").loss, 1, 2, 3, 4, 5)
    assert "loss() takes 2 positional arguments but 5 were given" in error
    assert error.endswith(f"(mine.py:{line('    def loss(params, state):')})")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "briefly",
            "strategy.optim.critic.warmup: expected fewer than the 7 steps, got 200",
        ),
        (
            "no_optim",
            "strategy.optim.critic: expected a kdjax.config.Optim, got 0.001",
        ),
        (
            "no_loss",
            "strategy.function: expected a Strategy with a function as its loss, got "
            "None",
        ),
        (
            "no_student",
            "strategy.function: expected a function whose first parameter is the "
            "student, or `networks`, got 'mine.py:no_student'",
        ),
        (
            "words",
            "strategy.function: expected schedules that return {name: number}, got "
            "'much'",
        ),
        ("falling", "strategy.optim.student.lr: expected a number >= 0, got -1.0"),
    ],
)
def test_declarations_that_do_not_fit(make, name, expected):
    assert refused(make, name) == expected


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"weight": -1.0}, "weight: expected a number >= 0, got -1.0"),
        (
            {"temperature": 0.0},
            "temperature: expected a number in [1e-06, 1e+06], got 0.0",
        ),
    ],
)
def test_weights_and_temperatures_of_named_strategies(options, expected):
    run = digits(strategy=Custom("mutual", options=options))
    error = refused(make_strategy, run, STUDENT, None, 10)
    assert error == f"strategy.options.{expected}"


LATER = """
from __future__ import annotations
from typing import Optional, Union

from jax import Array


def power(student, teacher, *, exponent: float | Array = 2.0, base: Optional[int] = 1,
          share: Union[float, Array] = 1.0, other: Unknown = 1):
    return ((student - teacher) ** exponent).sum(-1)


def typed(student, teacher, *, exponent: float | Array = 2.0, base: Optional[int] = 1,
          share: Union[float, Array] = 1.0):
    return power(student, teacher)
"""


def test_annotations_that_are_text_are_evaluated(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(LATER)
    monkeypatch.chdir(tmp_path)
    options = {"exponent": 3, "share": 0.5, "base": 2}
    term = Term("mine.py:typed", options=options)
    kernel = kernels.find_kernel(term, "terms.x")
    traced = kernels.traced_options(kernel, options)
    assert traced == {"exponent": 3.0, "share": 0.5}
    for option, kind in (("base", "a whole number"), ("share", "a number")):
        term = Term("mine.py:typed", options={option: "much"})
        assert refused(kernels.find_kernel, term, "terms.x") == (
            f"terms.x.options.{option}: expected {kind}, got 'much'"
        )
    # An annotation without a value is no error.
    kernels.find_kernel(Term("mine.py:power", options={"other": 2}), "terms.x")


WEIGHTS = """
def weights(teacher_logits):
    return teacher_logits[:, 0] * (1 / 0)
"""


def test_example_weights_of_the_user_have_file_and_line(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(WEIGHTS)
    monkeypatch.chdir(tmp_path)
    term = Term(example_weights="mine.py:weights")
    strategy = offline(STUDENT, {"x": term}, steps=3)
    assert not strategy.labels
    found = weighting.find_weights(term, "terms.x")
    assert found.arrays == ("teacher_logits",) and found.function is not None
    assert refused(found.function, jax.numpy.ones((2, 3))) == (
        "terms.x.example_weights: mine.py:weights raised ZeroDivisionError: division "
        "by zero (mine.py:3)"
    )


def test_terms_under_a_strategy_that_reads_none_are_refused(tmp_path, monkeypatch):
    """They would be in `config.json`, and in no loss."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deaf.py").write_text("def deaf(student):\n    return 1\n")
    terms = {**digits().terms, "extra": Term("logit_mse")}
    run = digits(strategy=Custom("deaf.py:deaf"), terms=terms)
    message = (
        "^terms.extra: expected none with deaf.py:deaf, which has no parameter `te"
    )
    with pytest.raises(ConfigError, match=message):
        make_strategy(run, STUDENT, None, 10)
    with pytest.raises(
        ConfigError, match="^strategy.function: expected a function ret"
    ):
        make_strategy(digits(strategy=run.strategy), STUDENT, None, 10)
