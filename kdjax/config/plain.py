"""Dataclasses as plain values, and back with every field checked."""

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from kdjax.config.bounds import LARGEST, describe, is_within
from kdjax.config.checks import (
    is_number,
    require,
    require_known,
    require_text,
    require_type,
)

# Characters of a longer name of a field or an entry would fill a message.
_LONGEST_NAME = 100
# What stands before the name of a function passed from Python.
PYTHON = "python:"
# `A | B` has the one origin or the other, by what A and B are.
UNIONS = (types.UnionType, Union)


def to_plain(value: Any) -> Any:
    """Dataclasses as tables of their fields, at every depth, and functions by name."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if callable(value):
        return PYTHON + getattr(value, "__qualname__", type(value).__qualname__)
    return value


def from_plain(cls: type, values: Any, at: str = "") -> Any:
    """A dataclass from a table of its fields; others and ill-typed ones are errors that
    name the field under `at`. One that is missing has its default, so that a table
    from before a field was added still reads as what it was."""
    require(isinstance(values, dict), at or "config", "a table of fields", values)
    dot = f"{at}." if at else ""
    hints = get_type_hints(cls, include_extras=True)
    _check_names(values, at or "config")
    for name in values:
        require_field(name, cls, f"{dot}{name}", values[name])
    needed = {f.name for f in dataclasses.fields(cls) if not _has_default(f)}
    missing = sorted(needed - set(values))
    require(not missing, at or "config", f"the fields {missing}", "none")
    return cls(**{k: convert(hints[k], v, f"{dot}{k}") for k, v in values.items()})


def check_types(config: Any, at: str = "") -> None:
    """Raise `ConfigError` for the first field whose value is not of its type.

    Types include choices (`Literal`) and bounds (`kdjax.config.bounds`). The `check` of
    a dataclass assumes them.
    """
    _check_tables(config, from_plain(type(config), to_plain(config), at), at)


def _check_tables(value: Any, converted: Any, at: str) -> None:
    """Refuse a table in place of a dataclass: `converted` has made one of it."""
    dot = f"{at}." if at else ""
    if dataclasses.is_dataclass(converted):
        kind = type(converted)
        require_type(value, kind, at, f"a kdjax.config.{kind.__name__}")
        for field in dataclasses.fields(converted):
            inner = getattr(value, field.name), getattr(converted, field.name)
            _check_tables(*inner, f"{dot}{field.name}")
    elif isinstance(converted, dict):
        for name, item in converted.items():
            _check_tables(value[name], item, f"{dot}{name}")
    elif isinstance(converted, tuple):
        for i, (item, its) in enumerate(zip(value, converted, strict=True)):
            _check_tables(item, its, f"{dot}{i}")


def require_field(name: str, cls: type, at: str, got: Any) -> None:
    """Raise `ConfigError` at `at` unless a dataclass has a field of this name."""
    names = [field.name for field in dataclasses.fields(cls)]
    if name not in names:
        text = f"a known field of {cls.__name__} ({', '.join(names)})"
        require_known(name, names, at, text)


def _check_names(table: Any, at: str) -> None:
    """Refuse names that no field and no entry has."""
    for name in table:
        ok = isinstance(name, str) and len(name) <= _LONGEST_NAME
        require(ok, at, f"names of at most {_LONGEST_NAME} characters", name)
        require_text(name, at)


def _has_default(field: dataclasses.Field) -> bool:
    none = dataclasses.MISSING
    return field.default is not none or field.default_factory is not none


def convert(hint: Any, value: Any, at: str) -> Any:
    """A JSON value as the type of a field; another type is an error."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, bounds = choices[0], choices[1:]
        value = convert(kind, value, at)
        number = "a number " if kind is float else ""
        ok = is_within(value, bounds)
        require(ok, at, f"{number}{describe(bounds)}", value)
        return value
    if dataclasses.is_dataclass(hint):
        return _convert_table(hint, value, at)
    if origin in UNIONS:
        return _convert_union(choices, value, at)
    if origin is dict:
        require(isinstance(value, dict), at, "a table", value)
        _check_names(value, at)
        return {k: convert(choices[1], v, f"{at}.{k}") for k, v in value.items()}
    if origin is tuple:
        require(isinstance(value, (list, tuple)), at, "a list", value)
        if choices[-1] is not Ellipsis:
            n = len(choices)
            require(len(value) == n, at, f"{n} values", value)
        has_fields = any(isinstance(v, dict) for v in value)
        ats = [f"{at}.{i}" if has_fields else at for i in range(len(value))]
        return tuple(map(convert, [choices[0]] * len(value), value, ats))
    if origin is Literal:
        names = [str(choice) for choice in choices]
        if value not in choices:
            require_known(value, names, at, f"one of {list(choices)}")
        return value
    if hint is float:
        require(is_number(value), at, "a finite number", value)
        return float(value)
    require(type(value) is hint, at, f"a value of type {hint.__name__}", value)
    # Devices compute with int32.
    ok = hint is not int or -LARGEST - 1 <= value <= LARGEST
    require(ok, at, "an integer of 32 bits", value)
    if hint is str:
        require_text(value, at)
    return value


def _convert_table(hint: Any, value: Any, at: str) -> Any:
    """A dataclass from its fields, or from a number where it has a form for that."""
    from_number = getattr(hint, "from_number", None)
    if from_number is None:
        return from_plain(hint, value, at)
    if is_number(value):
        return from_number(value)
    require(isinstance(value, dict), at, "a finite number or a table of fields", value)
    return from_plain(hint, value, at)


def _convert_union(choices: tuple[Any, ...], value: Any, at: str) -> Any:
    """A value as the member of a sum type that it fits."""
    if value is None and types.NoneType in choices:
        return None
    tables = [c for c in choices if dataclasses.is_dataclass(c)]
    if len(tables) == 1:
        return _convert_table(tables[0], value, at)
    if tables:
        require(isinstance(value, dict), at, "a table of fields", value)
        _check_names(value, at)
        return from_plain(member(tables, value, at), value, at)
    fitting = [choice for choice in choices if fits(choice, value)]
    if len(choices) == 2 and types.NoneType in choices:
        return convert(choices[0], value, at)
    want = " or ".join(_name(choice) for choice in choices)
    require(bool(fitting), at, f"a value of type {want}", value)
    return convert(fitting[0], value, at)


def member(tables: list[Any], values: Any, at: str) -> Any:
    """The dataclass among `tables` that a table of fields is one of: that of its
    `kind`, and without one the first that has all its fields."""
    if len(tables) == 1:
        return tables[0]
    if "kind" in values:
        kinds = {table.kind: table for table in tables}
        require_known(values["kind"], kinds, f"{at}.kind")
        return kinds[values["kind"]]
    names = [{f.name for f in dataclasses.fields(table)} for table in tables]
    for table, its in zip(tables, names, strict=True):
        if its >= set(values):
            return table
    unknown = next((k for k in values if not any(k in n for n in names)), None)
    if unknown is not None:
        require_known(unknown, set().union(*names), f"{at}.{unknown}")
    kinds = [table.kind for table in tables]
    require(False, at, f"the fields of one kind of {kinds}", sorted(values))


def fits(hint: Any, value: Any) -> bool:
    """True if a value is of one member of a union of plain types."""
    origin = get_origin(hint)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    return type(value) is hint


def _name(hint: Any) -> str:
    return getattr(get_origin(hint) or hint, "__name__", str(hint))
