"""Controllers: weights and temperatures that follow the metrics of a run.

A schedule is a function of the step alone. A controller also has a state, which each
step renews from the metrics of the terms. It is part of the checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import (
    ConfigError,
    Offline,
    Term,
    load_function,
    require,
    require_known,
    require_type,
)
from kdjax.core import collectives
from kdjax.core.trees import find_difference
from kdjax.core.types import Array, Batch, PyTree, Strategy
from kdjax.strategies import kernels
from kdjax.strategies.pairing import expand_pairs
from kdjax.strategies.user_code import guarded, parameters_of

Factors = Mapping[str, Mapping[str, Array]]
NETWORK = "controller"
# A running mean without values.
_EMPTY = np.zeros(2, np.float32)


class Controller(NamedTuple):
    """Pure functions that adapt the terms of a run.

    start: the state at the first step, arrays.
    factors: `state -> {term: {"weight": factor, "temperature": factor}}`: what the
        scheduled numbers are multiplied by. Either may be left out.
    update: `(metrics, state) -> state`, once a step. The metrics are those of the step:
        each term's unweighted value by its name, the `agreement` with the teacher, and
        the numbers that the factors were applied to, such as `temperature of soft`.
    """

    start: PyTree
    factors: Callable[[PyTree], Factors]
    update: Callable[[Mapping[str, Array], PyTree], PyTree]


def keep_divergence(
    terms: tuple[str, ...],
    *,
    term: str = "soft",
    low: float = 0.1,
    high: float = 0.3,
    pace: float = 1.01,
    largest: float = 4.0,
) -> Controller:
    """A temperature that keeps the divergence of a term in a band.

    Above `high` the targets are made softer: the temperature is multiplied by `pace` at
    each step. Below `low` it is divided by it.

    Args:
      terms: names of the run's terms.
      term: the one that is watched, and whose temperature moves.
      low, high: the band of its smoothed divergence in nats: its value without the
        factor of the squared temperature.
      largest: the largest factor; the smallest is 1 / largest.
    """
    _require_term(term, terms)
    at = "strategy.controller_options"
    require(0 <= low < high, f"{at}.low", f"a number in [0, high = {high})", low)
    require(pace > 1, f"{at}.pace", "a number > 1", pace)
    require(largest > 1, f"{at}.largest", "a number > 1", largest)

    def factors(state):
        return {term: {"temperature": state["factor"]}}

    def update(metrics, state):
        scale = jnp.square(metrics[f"temperature of {term}"])
        running = _smooth(state["running"], metrics[term] / scale)
        mean = _mean(running)
        change = jnp.where(mean > high, pace, jnp.where(mean < low, 1 / pace, 1.0))
        factor = jnp.clip(state["factor"] * change, 1 / largest, largest)
        return {"running": running, "factor": factor}

    start = {"running": _EMPTY, "factor": np.float32(1)}
    return Controller(start, factors, update)


def stop_at_agreement(
    terms: tuple[str, ...], *, term: str = "soft", agreement: float = 0.95
) -> Controller:
    """A term that ends once the student agrees with the teacher.

    Args:
      terms: names of the run's terms.
      term: the one whose weight becomes 0, for good.
      agreement: smoothed share of the batch with the teacher's top class.
    """
    _require_term(term, terms)
    at = "strategy.controller_options"
    ok = 0 < agreement <= 1
    require(ok, f"{at}.agreement", "a number in (0, 1]", agreement)

    def factors(state):
        return {term: {"weight": state["weight"]}}

    def update(metrics, state):
        require("agreement" in metrics, "teacher", "one to agree with", "none")
        running = _smooth(state["running"], metrics["agreement"])
        reached = _mean(running) >= agreement
        weight = jnp.where(reached, 0.0, state["weight"])
        return {"running": running, "weight": weight}

    start = {"running": _EMPTY, "weight": np.float32(1)}
    return Controller(start, factors, update)


def equal_magnitudes(terms: tuple[str, ...]) -> Controller:
    """Each term divided by its own smoothed value, so that weights compare terms.

    terms: names of the run's terms.
    """

    def factors(state):
        means = {name: _mean(x) for name, x in state.items()}
        # A term without a value yet, or of 0, keeps its weight.
        return {
            name: {"weight": 1 / jnp.where(mean > 0, mean, 1.0)}
            for name, mean in means.items()
        }

    def update(metrics, state):
        return {name: _smooth(state[name], metrics[name]) for name in state}

    return Controller(dict.fromkeys(terms, _EMPTY), factors, update)


CONTROLLERS: dict[str, Callable[..., Controller]] = {
    function.__name__: function
    for function in (keep_divergence, stop_at_agreement, equal_magnitudes)
}


def find_controller(config: Offline, terms: Mapping[str, Term]) -> Controller:
    """The controller that a run names, or `file.py:function` of the user's own.

    terms: of the run. A controller gets the names of those with a weight.

    Raises ConfigError of `strategy.controller` or one of its options.
    """
    field, name = "strategy.controller", config.controller
    names = tuple(part.name for part in expand_pairs(terms) if part.term.counts)
    if ":" in name:
        function = guarded(load_function(name, field), field, name)
    else:
        expected = f"one of {[*CONTROLLERS]} or file.py:function"
        require_known(name, CONTROLLERS, field, expected)
        function = CONTROLLERS[name]
    _, *more = parameters_of(function).items()
    options = config.controller_options
    kernels.check_options(dict(more), options, f"{field}_options")
    controller = function(names, **options)
    require_type(controller, Controller, field, "a kdjax.strategies.Controller")
    if ":" in name:
        parts = {k: getattr(controller, k) for k in ("factors", "update")}
        parts = {k: guarded(x, field, f"{k} of {name}") for k, x in parts.items()}
        controller = controller._replace(**parts)
    for term, numbers in controller.factors(controller.start).items():
        require_known(term, names, field, f"factors of terms, of {[*names]}")
        for number, factor in numbers.items():
            require_known(number, ("weight", "temperature"), field)
            ok, at = float(factor) >= 0, f"{number} of {term}"
            require(ok, field, f"a first factor >= 0 for the {at}", float(factor))
    return controller


def controlled(
    strategy: Strategy, controller: Controller, axis_name: str | None = None
) -> Strategy:
    """The same strategy with weights and temperatures of a controller.

    Its state is the entry `"controller"` of the strategy's. Metrics gain `NUMBER of
    TERM`, such as `temperature of soft`, after its factor.
    """

    def init(key: Array, batch: Batch) -> dict[str, PyTree]:
        networks = strategy.init(key, batch)
        return {**networks, NETWORK: {"state": controller.start}}

    def loss(params, state, batch, schedules, key):
        own = state[NETWORK]["state"]
        schedules = {name: dict(numbers) for name, numbers in schedules.items()}
        shown = {}
        for term, factors in controller.factors(own).items():
            for number, factor in factors.items():
                expected = f"a number that {term} has"
                require_known(number, schedules[term], NETWORK, expected)
                schedules[term][number] = schedules[term][number] * factor
                shown[f"{number} of {term}"] = schedules[term][number]
        inner = {name: x for name, x in state.items() if name != NETWORK}
        values, (inner, metrics) = strategy.loss(params, inner, batch, schedules, key)
        seen = collectives.mean(jax.lax.stop_gradient(metrics), axis_name)
        after = controller.update({**seen, **shown}, own)
        if difference := find_difference(own, after):
            at, before, now = difference
            at = f" at {at}" if at else ""
            expected = f"update to return the state as it was, {before}{at}"
            raise ConfigError("strategy.controller", expected, shown=now)
        state = {**inner, NETWORK: {"state": after}}
        return values, (state, {**metrics, **shown})

    return strategy._replace(init=init, loss=loss)


def _require_term(term: str, terms: tuple[str, ...]) -> None:
    require_known(term, terms, "strategy.controller_options.term")


def _smooth(running: Array, value: Array, decay: float = 0.99) -> Array:
    """A running mean with a further value: `[sum of weighted values, of weights]`."""
    return decay * running + (1 - decay) * jnp.stack([value, jnp.ones_like(value)])


def _mean(running: Array) -> Array:
    """The mean of the values so far, 0 before the first."""
    total, weight = running
    return total / jnp.where(weight > 0, weight, 1.0)
