"""Mismatches of weights and a model, formatted in few lines."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Mismatch(NamedTuple):
    """One leaf that does not fit.

    kind: "missing", "extra", "misshapen", "another dtype" or "not finite".
    name: the leaf's path in the model; of an extra one, its name in the file.
    where: its name in the file, in words.
    shapes: the expected and the actual shape, in words.
    """

    kind: str
    name: str
    where: str = ""
    shapes: str = ""


def format_mismatches(mismatches: Sequence[Mismatch]) -> str:
    """All mismatches as text: their number, then one line for those that are alike but
    for the numbers in their names.

    >>> names = "block0/scale", "block1/scale", "head/bias"
    >>> print(format_mismatches([Mismatch("missing", name) for name in names]))
    3 that do not fit:
      missing block*/scale (2: * = 0 1)
      missing head/bias
    """
    lines = "".join(f"\n  {_line(group)}" for group in _alike(mismatches))
    return f"{len(mismatches)} that do not fit:{lines}"


def summarize_mismatches(mismatches: Sequence[Mismatch]) -> str:
    """The first mismatch and the number of others, in one line.

    >>> names = "block0/scale", "block1/scale", "head/bias"
    >>> print(summarize_mismatches([Mismatch("missing", name) for name in names]))
    missing block0/scale and 2 more
    """
    first, *others = mismatches
    also = f" and {len(others)} more" if others else ""
    return f"{_line([first])}{also}"


def _alike(mismatches: Sequence[Mismatch]) -> list[list[Mismatch]]:
    """Groups of mismatches that differ in the numbers in their names alone."""
    groups: dict[tuple[str, ...], list[Mismatch]] = {}
    for mismatch in mismatches:
        shapes = "" if mismatch.kind == "extra" else mismatch.shapes
        key = mismatch.kind, _starred(mismatch.name), shapes
        groups.setdefault(key, []).append(mismatch)
    return [*groups.values()]


def _line(group: list[Mismatch]) -> str:
    kind, name, where, _ = group[0]
    text = f"{kind} {name}"
    if len(group) > 1:
        name, where = _starred(name), _starred(where)
        stars = "/".join("*" * name.count("*"))
        numbers = " ".join("/".join(_NUMBER.findall(each.name)) for each in group)
        text = f"{kind} {name} ({len(group)}: {stars} = {numbers})"
    shapes = ", ".join(dict.fromkeys(each.shapes for each in group))
    text = f"{text}, {where}" if where else text
    return f"{text}: {shapes}" if shapes else text


_NUMBER = re.compile(r"\d+")


def _starred(name: str) -> str:
    return _NUMBER.sub("*", name)
