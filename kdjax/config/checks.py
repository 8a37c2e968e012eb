"""The error of a config, and how it is raised."""

import math
from typing import Any


class ConfigError(ValueError):
    """A field of a config holds a value that cannot be run; the text names it."""


def require(ok: bool, field: str, expected: str, got: Any) -> None:
    """Raise `ConfigError` naming the field, what was expected and what came."""
    if not ok:
        raise ConfigError(f"{field}: expected {expected}, got {got!r}")


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value)
