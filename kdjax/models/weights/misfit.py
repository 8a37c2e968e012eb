"""What of some weights does not fit a model, said in few lines."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Misfit(NamedTuple):
    """One leaf that does not fit.

    kind: "missing", "extra", "misshapen" or "not finite".
    name: the leaf's path in the model; of an extra one, its name in the file.
    where: what the file calls it, in words.
    shapes: what was expected and what came, in words.
    """

    kind: str
    name: str
    where: str = ""
    shapes: str = ""


def told(misfits: Sequence[Misfit]) -> str:
    """All misfits at once: their number, then a line for all that are alike but for the
    numbers in their names.

    >>> names = "block0/scale", "block1/scale", "head/bias"
    >>> print(told([Misfit("missing", name) for name in names]))
    3 that do not fit:
      missing block*/scale (2: * = 0 1)
      missing head/bias
    """
    alike: dict[tuple[str, ...], list[Misfit]] = {}
    for misfit in misfits:
        shapes = "" if misfit.kind == "extra" else misfit.shapes
        key = misfit.kind, _starred(misfit.name), shapes
        alike.setdefault(key, []).append(misfit)
    lines = "".join(f"\n  {_line(group)}" for group in alike.values())
    return f"{len(misfits)} that do not fit:{lines}"


def _line(group: list[Misfit]) -> str:
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
