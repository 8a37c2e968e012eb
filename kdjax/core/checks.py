"""Checks made once, while tracing, so that they cost nothing at run time.

Each raises `ValueError` with a text that names the argument, says what was expected
and what came. They look at shapes and dtypes, and at values only where these are
plain numbers: a traced value passes, since nothing is known about it yet.
"""

import math
from collections.abc import Collection
from typing import Any, NoReturn

import jax.numpy as jnp
from jax.core import Tracer


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    raise ValueError(f"{name}: expected {expected}, got {got}")


def _has_dtype(x: Any, kind: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, kind)


def _describe(x: Any) -> str:
    return f"dtype {x.dtype}" if hasattr(x, "dtype") else f"a {type(x).__name__}"


def floating(name: str, x: Any) -> None:
    """Refuse anything but an array of real floating numbers."""
    if not _has_dtype(x, jnp.floating):
        _refuse(name, "an array of floating dtype", _describe(x))


def is_integer(x: Any) -> bool:
    """Whether `x` is an array of integers."""
    return _has_dtype(x, jnp.integer)


def is_boolean(x: Any) -> bool:
    """Whether `x` is an array of bool."""
    return _has_dtype(x, jnp.bool_)


def integer(name: str, x: Any) -> None:
    """Refuse anything but an array of integers."""
    if not is_integer(x):
        _refuse(name, "an array of integer dtype", _describe(x))


def shape(name: str, x: Any, expected: tuple[int, ...]) -> None:
    """Refuse an array whose shape is not exactly `expected`."""
    if tuple(x.shape) != tuple(expected):
        _refuse(name, f"shape {tuple(expected)}", f"shape {tuple(x.shape)}")


def same_shape(name: str, x: Any, expected_name: str, expected: Any) -> None:
    """Refuse an array whose shape differs from that of the array `expected`."""
    if x.shape != expected.shape:
        wanted = f"the shape of {expected_name}, {expected.shape}"
        _refuse(name, wanted, f"shape {x.shape}")


def rank(name: str, x: Any, expected: int, *, at_least: bool = False) -> None:
    """Refuse an array with another number of axes (or, `at_least`, with fewer)."""
    if x.ndim < expected or (x.ndim > expected and not at_least):
        bound = "at least " if at_least else ""
        _refuse(name, f"rank {bound}{expected}", f"rank {x.ndim}, shape {x.shape}")


def not_empty(name: str, x: Any) -> None:
    """Refuse an array without entries, such as an empty batch."""
    if 0 in x.shape:
        _refuse(name, "at least one entry on every axis", f"shape {x.shape}")


def axis(value: int, name: str, x: Any) -> int:
    """The non-negative form of an axis of the array called `name`."""
    if not -x.ndim <= value < x.ndim:
        _refuse("axis", f"an axis of {name}, shape {x.shape}", value)
    return value % x.ndim


def mask(name: str, x: Any, target: tuple[int, ...]) -> None:
    """Refuse a mask that is not boolean or does not broadcast to shape `target`."""
    if x is None:
        return
    if not _has_dtype(x, jnp.bool_):
        _refuse(name, "an array of bool", _describe(x))
    try:
        fits = jnp.broadcast_shapes(tuple(x.shape), target) == tuple(target)
    except ValueError:
        fits = False
    if not fits:
        _refuse(name, f"a shape that broadcasts to {target}", f"shape {x.shape}")


def matching_pair(kind: str, student: Any, teacher: Any) -> None:
    """Check `student_<kind>` and `teacher_<kind>`: floating, alike, not empty."""
    floating(f"student_{kind}", student)
    floating(f"teacher_{kind}", teacher)
    same_shape(f"teacher_{kind}", teacher, f"student_{kind}", student)
    not_empty(f"student_{kind}", student)


def _number(name: str, value: Any, expected: str) -> float | None:
    """A scalar as a float, or None where it is traced."""
    if jnp.shape(value) != ():
        _refuse(name, expected, f"shape {jnp.shape(value)}")
    if isinstance(value, Tracer):
        return None
    return float(value)


def positive(name: str, value: Any) -> None:
    """Refuse a number that is zero, negative, infinite or not a number."""
    expected = "a finite number above 0"
    number = _number(name, value, expected)
    if number is not None and not (math.isfinite(number) and number > 0):
        _refuse(name, expected, number)


def between(name: str, value: Any, low: float, high: float) -> None:
    """Refuse a number outside [low, high]."""
    expected = f"a number in [{low}, {high}]"
    number = _number(name, value, expected)
    if number is not None and not low <= number <= high:
        _refuse(name, expected, number)


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        _refuse(name, f"one of {sorted(allowed)}", repr(value))
