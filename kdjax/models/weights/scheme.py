"""What a naming scheme of published weights is.

A scheme says for a module of a network what the file calls it, and for a leaf of that
module its name and layout. What such a table cannot say (one array for three, constants
left out) is done by `read` before it and by `write` after it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kdjax.models.weights.files import Arrays
from kdjax.models.weights.layouts import Layout, Shape

# {path of a leaf, "params/head/kernel": its shape in the tree}
Shapes = Mapping[str, Shape]
# (pattern of a module's path, its name in the file or a function of the groups)
Row = tuple[str, str | Callable[..., str]]


class Place(NamedTuple):
    """Where a leaf is in the file, and how it is laid out there."""

    name: str
    layout: Layout


def _unchanged(arrays: Arrays, shapes: Shapes) -> Arrays:
    del shapes
    return dict(arrays)


class Scheme(NamedTuple):
    """One way to name the arrays of one kind of network.

    places: shapes of the tree -> {path of every leaf: where the file has it, None if
        the scheme has no name for it}.
    read: `(arrays of the file, shapes of the tree)` -> arrays under those names.
    write: the inverse of `read`.
    """

    places: Callable[[Shapes], dict[str, Place | None]]
    read: Callable[[Arrays, Shapes], Arrays] = _unchanged
    write: Callable[[Arrays, Shapes], Arrays] = _unchanged


def table(
    rows: Callable[[Shapes], Sequence[Row]],
    leaf: Callable[[str, str, Shape], Place | None],
) -> Callable[[Shapes], dict[str, Place | None]]:
    """The places that a table of modules gives.

    rows: shapes of the tree -> the table; the first pattern that fits wins.
    leaf: `(module's name in the file, leaf's name, shape)` -> place, None if unknown.
    """

    def places(shapes: Shapes) -> dict[str, Place | None]:
        found = {}
        known = rows(shapes)
        for path, shape in shapes.items():
            _, *modules, name = path.split("/")
            module = _module(known, "/".join(modules))
            found[path] = None if module is None else leaf(module, name, shape)
        return found

    return places


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
