"""Functions of the user's own: their parameters, and their errors as one line."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from kdjax.config import ConfigError
from kdjax.config.functions import definition, format_exception


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function by name.

    Annotations are evaluated, since `from __future__ import annotations` makes text of
    them. One that has no value here stays text.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:
        # An annotation is any expression, and may raise anything.
        signature = inspect.signature(function)
    return dict(signature.parameters)


def guarded(function: Callable[..., Any], field: str, name: str) -> Callable[..., Any]:
    """The same function, with its exceptions as errors of a field of the config.

    Args:
      function: a loss, a function of example weights, or a part of a strategy.
      field: the field that names it.
      name: as the error calls it.

    Returns:
      A function with the same signature. It raises `ConfigError` with the type and
      the text of the exception, and the file and line of the user's code.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with _errors_of(function, field, name):
            return function(*args, **options)

    return call


@contextlib.contextmanager
def _errors_of(function: Callable[..., Any], field: str, name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        text = format_exception(error, *definition(function))
        raise ConfigError(field, reason=f"{name} raised {text}") from error
