"""Functions of the user's own: their parameters, and their errors as one line."""

import contextlib
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from kdjax.config import ConfigError


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
        # Errors of JAX have paragraphs of advice; the first line states the error.
        text = (str(error).strip().splitlines() or [""])[0]
        line = _line(function, error)
        reason = f"{name} raised {type(error).__name__}: {text}{line and f' ({line})'}"
        raise ConfigError(field, reason=reason) from error


def _line(function: Callable[..., Any], error: Exception) -> str:
    """`FILE:LINE` of the last frame in the file of a function, or of its definition."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == code.co_filename]
    relative = os.path.relpath(code.co_filename)
    file = code.co_filename if relative.startswith("..") else relative
    return f"{file}:{lines[-1] if lines else code.co_firstlineno}"
