"""The strategy that a run names."""

import functools
import inspect
from collections.abc import Callable

from kdjax.config import Custom, Run, call, load_function, require
from kdjax.core.types import Model, Strategy
from kdjax.strategies import kernels
from kdjax.strategies.offline import offline

# What a function of the user's own may take beside its options.
CONTEXT = ("teacher", "steps", "classes", "axis_name", "terms")


def make_strategy(
    run: Run,
    student: Model,
    teacher: Model | None,
    classes: int,
    axis_name: str | None = None,
) -> Strategy:
    """How the networks of a run are trained.

    Args:
      run: the run; its `strategy` says which.
      student: the model that the run trains.
      teacher: the model whose variables are `batch.frozen["teacher"]`; None without.
      classes: of the data.
      axis_name: the pmap axis over which batches are split.

    Raises:
      ConfigError: naming the field of the strategy or term that cannot be used.
    """
    if isinstance(run.strategy, Custom):
        context = (teacher, run.steps, classes, axis_name, run.terms)
        given = dict(zip(CONTEXT, context, strict=True))
        return _custom(run.strategy, student, given)
    tail = run.cache.tail
    return offline(student, run.terms, steps=run.steps, tail=tail, axis_name=axis_name)


def _custom(config: Custom, student: Model, context: dict) -> Strategy:
    field = "strategy.function"
    function: Callable = load_function(config.function, field)
    _, *more = inspect.signature(function).parameters.values()
    known = {p.name: p for p in more if p.name not in CONTEXT}
    kernels.check_options(known, config.options, "strategy.options")
    taken = {p.name: context[p.name] for p in more if p.name in CONTEXT}
    options = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.options.items()
    }
    bound = functools.partial(function, **taken, **options)
    made = call(functools.update_wrapper(bound, function), field, student)
    require(isinstance(made, Strategy), field, "a function returning a Strategy", made)
    return made
