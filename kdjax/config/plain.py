"""Dataclasses as plain values, and back with every field checked."""

import dataclasses
import types
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kdjax.config.checks import require


def from_plain(cls: type, values: Any, at: str = "") -> Any:
    """A dataclass from a table of its fields; others and ill-typed ones are errors that
    name the field under `at`. One that is missing has its default, so that a table
    from before a field was added still reads as what it was."""
    require(isinstance(values, dict), at or "config", "a table of fields", values)
    dot = f"{at}." if at else ""
    hints = get_type_hints(cls)
    for name in values:
        require(name in hints, f"{dot}{name}", "a known field", values[name])
    needed = {f.name for f in dataclasses.fields(cls) if not _has_default(f)}
    missing = sorted(needed - set(values))
    require(not missing, at or "config", f"the fields {missing}", "none")
    return cls(**{k: _convert(hints[k], v, f"{dot}{k}") for k, v in values.items()})


def _has_default(field: dataclasses.Field) -> bool:
    none = dataclasses.MISSING
    return field.default is not none or field.default_factory is not none


def _convert(hint: Any, value: Any, at: str) -> Any:
    """A JSON value as the type that a field asks for; another type is an error."""
    origin, choices = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, at)  # type: ignore[arg-type]
    if origin is types.UnionType:
        if value is None and type(None) in choices:
            return None
        return _convert(choices[0], value, at)
    if origin is dict:
        require(isinstance(value, dict), at, "a table", value)
        return {k: _convert(choices[1], v, f"{at}.{k}") for k, v in value.items()}
    if origin is tuple:
        require(isinstance(value, (list, tuple)), at, "a list", value)
        if choices[-1] is not Ellipsis:
            n = len(choices)
            require(len(value) == n, at, f"{n} values", value)
        return tuple(_convert(choices[0], v, at) for v in value)
    if origin is Literal:
        require(value in choices, at, f"one of {list(choices)}", value)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is hint, at, f"a value of type {hint.__name__}", value)
    return value
