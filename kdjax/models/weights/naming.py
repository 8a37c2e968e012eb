"""Naming schemes of published weights.

A scheme maps a module of a network to its name in the file, and a leaf of that module
to its name and layout. Other differences (one array for three, constants left out) are
for `read` before it and `write` after it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kdjax.models.weights.array_layouts import Layout, Shape
from kdjax.models.weights.files import Arrays

# {path of a leaf, "params/head/kernel": its shape in the tree}
Shapes = Mapping[str, Shape]
# (pattern of a module's path, its name in the file or a function of the groups)
Row = tuple[str, str | Callable[..., str]]


class Entry(NamedTuple):
    """The entry of a leaf in the file: its name and layout."""

    name: str
    layout: Layout


def _unchanged(arrays: Arrays, shapes: Shapes) -> Arrays:
    del shapes
    return dict(arrays)


class Scheme(NamedTuple):
    """One way to name the arrays of one kind of network.

    entries: shapes of the tree -> {path of every leaf: its entry in the file, None if
        the scheme has no name for it}.
    read: `(arrays of the file, shapes of the tree)` -> arrays under those names.
    write: the inverse of `read`.
    """

    entries: Callable[[Shapes], dict[str, Entry | None]]
    read: Callable[[Arrays, Shapes], Arrays] = _unchanged
    write: Callable[[Arrays, Shapes], Arrays] = _unchanged


def table(
    rows: Callable[[Shapes], Sequence[Row]],
    leaf: Callable[[str, str, Shape], Entry | None],
) -> Callable[[Shapes], dict[str, Entry | None]]:
    """The entries of a table of modules, by leaf.

    rows: shapes of the tree -> the table; the first pattern that fits wins.
    leaf: `(module's name in the file, leaf's name, shape)` -> entry, None if unknown.
    """

    def entries(shapes: Shapes) -> dict[str, Entry | None]:
        by_path = {}
        table_rows = rows(shapes)
        for path, shape in shapes.items():
            _, *modules, name = path.split("/")
            module = _module(table_rows, "/".join(modules))
            by_path[path] = None if module is None else leaf(module, name, shape)
        return by_path

    return entries


def _module(rows: Sequence[Row], path: str) -> str | None:
    for pattern, name in rows:
        match = re.fullmatch(pattern, path)
        if match:
            return name if isinstance(name, str) else name(*match.groups())
    return None


def fixed(*rows: Row) -> Callable[[Shapes], Sequence[Row]]:
    """A table that is the same for every network of the kind."""
    return lambda shapes: rows


def before(number: str) -> int:
    """The number counted from 0, as PyTorch does; names here count from 1."""
    return int(number) - 1
