"""The error of a config, and how it is raised."""

import contextlib
import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any


class ConfigError(ValueError):
    """A field of a config holds a value that cannot be run; the text names it."""


def require(ok: bool, field: str, expected: str, got: Any) -> None:
    """Raise `ConfigError` naming the field, what was expected and what came."""
    if not ok:
        raise ConfigError(f"{field}: expected {expected}, got {got!r}")


def require_known(
    name: Any, names: Collection[str], field: str, expected: str = ""
) -> None:
    """Raise `ConfigError` for a name that is not among `names`, nearest first.

    expected: in place of the list of names, where that says more.
    """
    if name in names:
        return
    near = difflib.get_close_matches(str(name), names, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    expected = expected or f"one of {sorted(names)}"
    raise ConfigError(f"{field}: {meant}expected {expected}, got {name!r}")


@contextlib.contextmanager
def beneath(field: str, names: Mapping[str, str] | None = None) -> Iterator[None]:
    """What errors raised inside name is a field of `field`.

    names: {name in the error: name in `field`}; errors of other fields pass as they
    are. By default all are meant, by their own names.
    """
    try:
        yield
    except ConfigError as error:
        name, found, text = str(error).partition(": ")
        first, dot, rest = name.partition(".")
        if not found or (names is not None and first not in names):
            raise
        first = first if names is None else names[first]
        raise ConfigError(f"{field}.{first}{dot}{rest}: {text}") from error


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value)
