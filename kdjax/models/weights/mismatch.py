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
    alike: dict[tuple[str, ...], list[Mismatch]] = {}
    for mismatch in mismatches:
        shapes = "" if mismatch.kind == "extra" else mismatch.shapes
        key = mismatch.kind, _starred(mismatch.name), shapes
        alike.setdefault(key, []).append(mismatch)
    lines = "".join(f"\n  {_line(group)}" for group in alike.values())
    return f"{len(mismatches)} that do not fit:{lines}"


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
