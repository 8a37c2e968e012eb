"""Single fields of a config by their dotted path, from text."""

import ast
import contextlib
import dataclasses
import types
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from kdjax.config.checks import ConfigError, require, require_known
from kdjax.config.plain import UNIONS, convert, fits


def set_fields(config: Any, changes: Iterable[tuple[str, Sequence[str]]]) -> Any:
    """A config with fields set one after another.

    Args:
      config: a dataclass of `kdjax.config`.
      changes: (dotted path, words). Words are Python or JSON literals, or text; a
        number for a `Scalar` is a constant one. A new name in a table (`terms.NAME`)
        makes a new entry, a new number at the end of a list a new item, and a field
        of another kind of a sum type (`strategy.function`) the value of that kind.

    Raises:
      ConfigError: naming the path that is none, or the value of another type.
    """
    changes = _weights_first(list(changes))
    _check_new_terms(config, [path for path, _ in changes])
    for path, words in changes:
        names = path.split(".")
        config = _set(type(config), config, names, list(words), path, len(names))
    for path, _ in changes:
        _check_kept(config, path, [other for other, _ in changes])
    return config


def _check_kept(config: Any, path: str, paths: Sequence[str]) -> None:
    """Refuse a field that a later one of another kind of a sum type has discarded."""
    value: Any = config
    names = [name.replace("-", "_") for name in path.split(".")]
    for depth, name in enumerate(names):
        if not dataclasses.is_dataclass(value):
            return
        if not hasattr(value, name):
            section = ".".join(path.split(".")[:depth])
            own = _names(value)
            others = [p for p in paths if p.startswith(f"{section}.")]
            other = [p for p in others if p.split(".")[depth].replace("-", "_") in own]
            kind = getattr(value, "kind", "another kind")
            expected = f"none beside {other[-1]}, which makes {section}.kind {kind}"
            raise ConfigError(path, reason=f"expected {expected}")
        value = getattr(value, name)


def _weights_first(changes: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Changes with the weights of a model before its other fields.

    Weights choose the kind of a teacher, whose model then begins anew.
    """
    for i, (path, _) in enumerate(changes):
        model, _, field = path.rpartition(".")
        if field == "weights":
            same = (j for j in range(i) if changes[j][0].startswith(f"{model}."))
            changes.insert(next(same, i), changes.pop(i))
    return changes


def _check_new_terms(config: Any, paths: Sequence[str]) -> None:
    """Refuse a new term without a loss: most often the misspelled name of another."""
    terms = getattr(config, "terms", {})
    for path in paths:
        table, _, rest = path.partition(".")
        name, _, field = rest.partition(".")
        if table == "terms" and field and f"terms.{name}.loss" not in paths:
            expected = f"one of {sorted(terms)}, or terms.{name}.loss for a new term"
            require_known(name, terms, f"terms.{name}", expected)


def _set(
    hint: Any, value: Any, names: list[str], words: list[str], path: str, depth: int
) -> Any:
    """`value` with what `names` lead to set; `depth`: the number of names in `path`."""
    if not names:
        return parse_words(hint, words, path)
    at = ".".join(path.split(".")[: depth - len(names) + 1])
    name, *rest = names
    if get_origin(hint) in UNIONS:
        fields = [field.replace("-", "_") for field in names]
        hint, value = _choose(hint, value, fields, words, at)
    origin, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints, name = get_type_hints(hint), name.replace("-", "_")
        require_known(name, _names(hint), at)
        value = hint() if value is None else value  # type: ignore[operator]
        old = getattr(value, name)
        new = _set(hints[name], old, rest, words, path, depth)
        return dataclasses.replace(value, **{name: new})  # type: ignore[type-var]
    if origin is dict:
        old = (value or {}).get(name)
        return {**(value or {}), name: _set(inner[1], old, rest, words, path, depth)}
    if origin is tuple and inner[-1] is Ellipsis:
        items, index = list(value or ()), int(name) if name.isdigit() else -1
        ok = 0 <= index <= len(items)
        require(ok, at, f"a number from 0 to {len(items)}", name)
        old = items[index] if index < len(items) else None
        items[index : index + 1] = [_set(inner[0], old, rest, words, path, depth)]
        return tuple(items)
    raise ConfigError(at, "the end of the path", path)


def _choose(
    hint: Any, value: Any, names: list[str], words: list[str], at: str
) -> tuple[Any, Any]:
    """The member of a sum type that a path belongs to, and the value so far as one.

    `kind` names the member. Otherwise it is the present one if that has the field, and
    else the first that has. What both have is kept.
    """
    members = [c for c in get_args(hint) if c is not types.NoneType]
    tables = [c for c in members if dataclasses.is_dataclass(c)]
    if not tables:
        return members[0], value
    kinds = {getattr(table, "kind", ""): table for table in tables}
    path, name = ".".join(names), names[0]
    own = [table for table in tables if getattr(table, "chosen_by", "") == path]
    if name == "kind":
        require_known(words[0], kinds, at)
        table = kinds[words[0]]
    elif own:
        table = own[0]
    elif type(value) in tables and name in _names(type(value)):
        table = type(value)
    else:
        fields = {field: t for t in reversed(tables) for field in _names(t)}
        require_known(name, fields, at)
        table = fields[name]
    return table, value if type(value) is table else _carry(value, table)


def _carry(value: Any, table: Any) -> Any:
    """The value of another kind, with the fields that `value` has in common with it."""
    if value is None:
        return None
    # Published weights bring their own model with them.
    common = {*_names(table)} - {"kind", *getattr(table, "fresh", ())}
    common &= {*_names(value)}
    return table(**{name: getattr(value, name) for name in common})


def _names(table: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(table)]


def parse_words(hint: Any, words: list[str], at: str) -> Any:
    """The value that words stand for in a field of type `hint`.

    Raises:
      ConfigError: naming `at`, for words that stand for none.
    """
    origin, members = get_origin(hint), get_args(hint)
    if origin in UNIONS and types.NoneType in members:
        if words in (["None"], ["none"], ["null"]):
            return None
        members = tuple(c for c in members if c is not types.NoneType)
        hint = members[0] if len(members) == 1 else hint
        origin = get_origin(hint)
    kinds = [get_origin(c) or c for c in members] if origin in UNIONS else []
    several = origin is tuple or (tuple in kinds and words)
    if several and len(words) != 1:
        return convert(hint, [_item(hint, word) for word in words], at)
    if len(words) != 1:
        shown = repr(" ".join(words)) if words else "nothing"
        raise ConfigError(at, "a value", shown=shown)
    word, value = words[0], literal(words[0])
    if hint is str or (str in kinds and not any(fits(c, value) for c in members)):
        return value if isinstance(value, str) else word
    if origin is tuple and not isinstance(value, (list, tuple)):
        value = [_item(hint, word)]
    return convert(hint, value, at)


def _item(hint: Any, word: str) -> Any:
    """One of several words; a name stays text though it looks like a number."""
    inner = [c for c in (hint, *get_args(hint)) if get_origin(c) is tuple]
    texts = any(get_args(c)[0] is str for c in inner)
    return word if texts else literal(word)


def literal(text: str) -> Any:
    """The Python or JSON value that a text spells; else the text."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    # A text of thousands of brackets or signs is too deep for the parser.
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text
