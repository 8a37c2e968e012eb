"""Choice of the strategy of a run."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from kdjax.config import (
    SOFT,
    ConfigError,
    Custom,
    Optim,
    Run,
    Term,
    beneath,
    is_number,
    load_function,
    require,
    require_known,
)
from kdjax.config.bounds import TEMPERATURES
from kdjax.config.plain import from_plain
from kdjax.core import checks
from kdjax.core.trees import is_numeric
from kdjax.core.types import Model, Strategy
from kdjax.presets import PRESETS, digits_labels
from kdjax.strategies import kernels
from kdjax.strategies.controllers import controlled, find_controller
from kdjax.strategies.offline import offline
from kdjax.strategies.registry import CONTEXT, STRATEGIES
from kdjax.strategies.user_code import guarded, parameters_of


def make_strategy(
    run: Run,
    student: Model,
    teacher: Model | None,
    classes: int,
    axis_name: str | None = None,
    *,
    networks: Mapping[str, Model] | None = None,
    examples: int = 0,
) -> Strategy:
    """The strategy of a run: its terms, a strategy of kdjax, or a function of a user's.

    Args:
      run: the run, with its `strategy` and `terms`.
      student: the model that the run trains.
      teacher: the model whose variables are `batch.frozen["teacher"]`; None without.
      classes: of the data.
      axis_name: the pmap axis over which batches are split.
      networks: the models of `run.networks` by name.
      examples: number of training examples; `batch.index` is below it.

    Raises:
      ConfigError: naming the field of the strategy or term that cannot be used.
    """
    if isinstance(run.strategy, Custom):
        networks = dict(networks or {})
        learning = {k: x for k, x in networks.items() if not run.networks[k].frozen}
        learning = {"student": student, **learning}
        context = (
            teacher,
            run.steps,
            classes,
            axis_name,
            run.terms,
            learning,
            examples,
            run.optim,
        )
        arguments = dict(zip(CONTEXT, context, strict=True))
        return _custom(run.strategy, student, networks, arguments)
    strategy = offline(
        student,
        run.terms,
        steps=run.steps,
        tail=run.cache.tail,
        axis_name=axis_name,
        gradient_norms=run.strategy.gradient_norms,
        project_gradients=run.strategy.project_gradients,
    )
    if not run.strategy.controller:
        return strategy
    return controlled(strategy, find_controller(run.strategy, run.terms), axis_name)


def find_strategy(name: str, field: str = "strategy.function") -> Callable[..., Any]:
    """A strategy of kdjax by its name, or a function of the user's own."""
    if ":" in name:
        return load_function(name, field)
    expected = "the name of a strategy (`kdjax strategies`) or file.py:function"
    require_known(name, STRATEGIES, field, expected)
    return STRATEGIES[name].function


def _refuse_terms(terms: Mapping[str, Term], function: str) -> None:
    """Refuse terms of a run's own under a strategy that reads none."""
    defaults = [{"soft": SOFT}, digits_labels().terms]
    defaults += [preset().terms for preset in PRESETS.values()]
    if terms in defaults:
        return
    known = [name for name, term in terms.items() if {name: term} in defaults]
    field = next((f"terms.{name}" for name in terms if name not in known), "terms")
    expected = f"none with {function}, which has no parameter `terms`"
    raise ConfigError(field, expected, terms, shown=f"the terms {[*terms]}")


def _custom(
    config: Custom, student: Model, networks: Mapping[str, Model], context: dict
) -> Strategy:
    """The strategy that a function makes of the student, and of what it has
    parameters for."""
    field = "strategy.function"
    function = find_strategy(config.function, field)
    parameters = parameters_of(function)
    expected = "a function whose first parameter is the student, or `networks`"
    require(bool(parameters), field, expected, config.function)
    _check_networks(config.function, parameters, networks)
    given = {**networks, **context}
    first, *more = parameters
    accepted = {name: parameters[name] for name in more if name not in given}
    kernels.check_options(accepted, config.options, "strategy.options")
    if config.function in STRATEGIES:
        _check_ranges(config.options)
    if "terms" not in parameters:
        _refuse_terms(context["terms"], config.function)
    one = context["networks"] if first == "networks" else student
    arguments = {name: given[name] for name in more if name in given}
    options = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.options.items()
    }
    name = getattr(function, "__name__", config.function)
    strategy = guarded(function, field, name)(one, **arguments, **options)
    _check_parts(strategy, context["steps"])
    parts = {part: getattr(strategy, part) for part in ("init", "loss", "schedules")}
    parts = {k: guarded(part, field, f"{k} of {name}") for k, part in parts.items()}
    # Config and labels were checked on the host, so the step needs no guards.
    loss = checks.without_guards()(parts.pop("loss"))
    _check_schedules(parts["schedules"](0))
    return strategy._replace(loss=loss, **parts)


def _check_schedules(schedules: Any) -> None:
    """Refuse what is no tree of numbers by name."""
    field, expected = "strategy.function", "schedules that return {name: number}"
    require(isinstance(schedules, Mapping), field, expected, schedules)
    for leaf in jax.tree.leaves(schedules):
        require(is_numeric(leaf), field, expected, leaf)


def _check_ranges(options: Mapping[str, Any]) -> None:
    """Refuse negative weights and temperatures out of range, in strategies of kdjax."""
    low, high = TEMPERATURES
    for name, value in options.items():
        kind, field = name.rpartition("_")[2], f"strategy.options.{name}"
        if not is_number(value):
            continue
        if kind == "weight":
            require(value >= 0, field, "a number >= 0", value)
        if kind == "temperature":
            ok = low <= value <= high
            require(ok, field, f"a number in [{low:g}, {high:g}]", value)


def _check_networks(
    function: str, parameters: Collection[str], networks: Mapping[str, Model]
) -> None:
    """Refuse networks that a strategy does not take, and one that it lacks."""
    known = STRATEGIES.get(function)
    own = known.networks if known else [x for x in parameters if x not in CONTEXT]
    if "networks" not in parameters:
        expected = f"a network that {function} takes: {', '.join(own) or 'none'}"
        for name in networks:
            require_known(name, own, f"networks.{name}", expected)
    for name in known.networks if known else ():
        expected = f"a network, as {function} trains it beside the student"
        require(name in networks, f"networks.{name}", expected, "none")


def _check_parts(strategy: Any, steps: int) -> None:
    """Refuse what is no strategy, or has parts of other kinds."""
    field, expected = "strategy.function", "a function returning a Strategy"
    require(isinstance(strategy, Strategy), field, expected, strategy)
    for part in ("init", "loss", "schedules"):
        value = getattr(strategy, part)
        expected = f"a Strategy with a function as its {part}"
        require(callable(value), field, expected, value)
    for network, optim in strategy.optim.items():
        at = f"strategy.optim.{network}"
        require(isinstance(optim, Optim), at, "a kdjax.config.Optim", optim)
        with beneath(at):
            from_plain(Optim, dataclasses.asdict(optim))
        optim.check(at, steps)
