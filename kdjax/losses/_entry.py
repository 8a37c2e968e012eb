"""One row of the registry of losses."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """A public name of `kdjax.losses`: its method, its paper and its use.

    name: as in `kdjax.losses`.
    method: the method's long name, with its acronym.
    formula: what it computes; of a helper, what it is.
    aliases: other words that people search for.
    goals: what it is good for, in words.
    paper: authors or method, year and arXiv id or doi; empty for helpers.
    weight: the published weight, or None where our references have none.
    start: a weight to begin with where none is published; not a published number.
    tap: what to pass as student's and teacher's argument.
    invariances: changes of the arguments that leave the value as it is.
    needs: what it takes besides student and teacher ("labels", "several taps", ...).
    relation: whether values compare examples, and so mean the global batch.
    kernel: whether it has the family's form `(student, teacher, *, ...)`.
    term: whether a run can use it by name: it needs nothing but taps, logits or labels.
    room: what it compares: logits, features, relations, sequences, dense, generative.
    """

    name: str
    method: str
    formula: str
    aliases: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    paper: str = ""
    weight: str | None = None
    start: str = ""
    tap: str = ""
    invariances: str = ""
    needs: tuple[str, ...] = ()
    relation: bool = False
    kernel: bool = False
    term: bool = False
    room: str = ""

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself (a class for `CRDMemory`)."""
        # When first used: the package imports its registry while it is imported.
        from kdjax import losses

        return getattr(losses, self.name)

    @property
    def year(self) -> int | None:
        """Year of publication, as far as the reference has one."""
        year = re.search(r"\b(19[5-9]\d|20[0-4]\d)\b", self.paper)
        arxiv = re.search(r"\b(\d\d)\d\d\.\d{4,5}\b", self.paper)
        if year:
            return int(year[1])
        return 2000 + int(arxiv[1]) if arxiv else None


def entry(name: str, method: str, **fields: Any) -> Entry:
    """An `Entry` whose lists are written with commas: `aliases="kd, hinton"`."""
    for key in ("aliases", "goals", "needs"):
        words = fields.get(key, "")
        fields[key] = tuple(x.strip() for x in words.split(",") if x.strip())
    return Entry(name, method, **fields)
