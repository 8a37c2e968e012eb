"""Controllers: pure functions on made-up metrics, and a strategy that has one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import HARD, SOFT, ConfigError, Offline, Scalar, Term
from kdjax.strategies.controllers import (
    Controller,
    controlled,
    equal_magnitudes,
    find_controller,
    keep_divergence,
    stop_at_agreement,
)
from kdjax.strategies.offline import offline
from tests.strategies.test_offline import PLAIN, STUDENT, TARGETS

TERMS = {"soft": SOFT, "hard": HARD}


def follow(controller, metrics):
    """The factors before each of the steps with these metrics, and behind the last."""
    state, found = controller.start, []
    for step in [*metrics, None]:
        factors = controller.factors(state)
        found.append(jax.tree.map(float, factors))
        if step is not None:
            step = {name: jnp.float32(x) for name, x in step.items()}
            state = controller.update(step, state)
    return found


def test_a_temperature_rises_above_the_band_and_falls_below_it():
    controller = keep_divergence(("soft",), low=1.0, high=2.0, pace=1.5, largest=2.0)

    def temperatures(value, temperature=1.0):
        step = {"soft": value, "temperature of soft": temperature}
        return [x["soft"]["temperature"] for x in follow(controller, [step] * 3)]

    assert temperatures(3.0) == [1.0, 1.5, 2.0, 2.0]
    below = [1.0, 1 / 1.5, 0.5, 0.5]
    np.testing.assert_allclose(temperatures(0.5), below, rtol=1e-6)
    assert temperatures(1.5) == [1.0] * 4
    # The value has the factor T^2: 24 / 4^2 is inside, and 12 / 4^2 is below.
    assert temperatures(24.0, 4.0) == [1.0] * 4
    np.testing.assert_allclose(temperatures(12.0, 4.0), below, rtol=1e-6)


def test_the_band_is_of_the_smoothed_value():
    """One step above it, after many inside, moves nothing."""
    controller = keep_divergence(("soft",), low=1.0, high=2.0)
    at_one = {"temperature of soft": 1.0}
    steps = [{"soft": 1.5, **at_one}] * 5 + [{"soft": 3.0, **at_one}]
    found = follow(controller, steps)
    mean = (1.5 * sum(0.99**i for i in range(1, 6)) + 3.0) / sum(
        0.99**i for i in range(6)
    )
    assert mean < 2.0 and found[-1]["soft"]["temperature"] == 1.0


def test_a_term_ends_for_good_once_student_and_teacher_agree():
    controller = stop_at_agreement(("soft",), agreement=0.8)
    steps = [{"agreement": x} for x in (0.5, 0.7, 1.0, 1.0, 1.0, 0.0, 0.0)]
    weights = [x["soft"]["weight"] for x in follow(controller, steps)]
    # The means are 0.5, 0.60, 0.74, 0.80, 0.84, 0.70, 0.60.
    assert weights == [1, 1, 1, 1, 0, 0, 0, 0]


def test_each_term_is_divided_by_its_own_running_mean():
    controller = equal_magnitudes(("soft", "hard"))
    found = follow(controller, [{"soft": 4.0, "hard": 0.5}, {"soft": 2.0, "hard": 0.0}])
    assert found[0] == {"soft": {"weight": 1.0}, "hard": {"weight": 1.0}}
    assert found[1]["soft"]["weight"] == pytest.approx(1 / 4)
    assert found[1]["hard"]["weight"] == pytest.approx(2)
    mean = (0.99 * 4 + 2) / 1.99
    assert found[2]["soft"]["weight"] == pytest.approx(1 / mean)


def test_a_term_of_zero_keeps_its_weight():
    controller = equal_magnitudes(("soft",))
    assert follow(controller, [{"soft": 0.0}])[-1] == {"soft": {"weight": 1.0}}


def twice(terms):
    """Twice the weight of the first term at each step."""

    def update(metrics, state):
        return 2 * state

    first, *_ = terms
    return Controller(np.float32(1), lambda x: {first: {"weight": x}}, update)


def test_a_strategy_has_the_factors_of_its_state():
    """The loss is the sum with the factors; the state moves once a step."""
    terms = {"soft": Term("softmax_kl", weight=Scalar(0.5)), "hard": HARD}
    plain = offline(STUDENT, terms, steps=11)
    strategy = controlled(plain, twice(tuple(terms)))
    batch = PLAIN._replace(targets=TARGETS)
    variables = strategy.init(jax.random.key(0), batch)
    state = {name: dict(x) for name, x in variables.items()}
    params = {"student": state["student"].pop("params")}
    for step, factor in enumerate([1, 2, 4]):
        schedules, key = strategy.schedules(step), jax.random.key(step)
        values, (state, metrics) = strategy.loss(params, state, batch, schedules, key)
        want = 0.5 * factor * metrics["soft"] + metrics["hard"]
        np.testing.assert_allclose(values["student"], want, rtol=1e-6)
        assert metrics["weight of soft"] == 0.5 * factor
    assert state["controller"]["state"] == 8 and state["student"] == {}


OWN = """
def own(terms, *, speed: float = 1.0):
    {}
"""


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("keep_divergense", {}, "strategy.controller: did you mean 'keep_divergence'"),
        ("keep_divergence", {"lo": 1.0}, "controller_options.lo: did you mean 'low'"),
        (
            "keep_divergence",
            {"low": 1.0},
            r"options.low: expected a number in \[0, ",
        ),
        ("keep_divergence", {"pace": 1.0}, "controller_options.pace: expected a num"),
        ("keep_divergence", {"term": "sof"}, "options.term: did you mean 'soft'"),
        (
            "stop_at_agreement",
            {"agreement": 2.0},
            r"agreement: expected a number in",
        ),
        ("own", {"speed": "x"}, "options.speed: expected a number"),
    ],
)
def test_a_wrong_controller_is_one_line(name, options, text, tmp_path):
    if name == "own":
        file = tmp_path / "mine.py"
        file.write_text(OWN.format("return None"))
        name = f"{file}:own"
    config = Offline(controller=name, controller_options=options)
    with pytest.raises(ConfigError, match=text) as error:
        find_controller(config, TERMS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return None", "strategy.controller: expected a .*Controller, got NoneType"),
        ("raise KeyError('x')", "strategy.controller: .* raised KeyError: 'x'"),
        (
            "return Controller(0.0, lambda s: {'soft': {'weight': -1.0}}, None)",
            "controller: expected a first factor >= 0 for the weight of soft, got -1.0",
        ),
        (
            "return Controller(0.0, lambda s: {}, lambda m, s: m['nothing'])",
            r"strategy.controller: update of .* raised KeyError: 'nothing' \(.*:4\)",
        ),
        (
            "return Controller(0.0, lambda s: {}, lambda m, s: [s, s])",
            r"controller: expected update to return the state as it was, float32\[\]",
        ),
    ],
)
def test_a_wrong_function_of_ones_own_is_one_line(body, text, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from kdjax.strategies import Controller\n" + OWN.format(body))
    with pytest.raises(ConfigError, match=text):
        controller = find_controller(Offline(controller=f"{file}:own"), TERMS)
        strategy = controlled(offline(STUDENT, TERMS, steps=3), controller)
        batch = PLAIN._replace(targets=TARGETS)
        variables = strategy.init(jax.random.key(0), batch)
        params = {"student": variables["student"]["params"]}
        state = {"student": {}, "controller": variables["controller"]}
        key, schedules = jax.random.key(1), strategy.schedules(0)
        strategy.loss(params, state, batch, schedules, key)


def test_options_need_a_controller():
    with pytest.raises(ConfigError, match="none without a controller"):
        Offline(controller_options={"low": 1.0}).check()
