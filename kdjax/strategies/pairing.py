"""Pairs of taps of a student and a teacher, by relative depth or all to all."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kdjax.config import Term, as_names


class Paired(NamedTuple):
    """A term of one pair.

    name: its own.
    field: that of the config that it is from, for errors.
    term: with a tap of each network, or with the taps of one loss.
    """

    name: str
    field: str
    term: Term


def name_projector(term: str) -> str:
    """The network that is the projector of a term of that name."""
    return f"{term} connector"


def pair_taps(
    student: Sequence[str], teacher: Sequence[str], how: str
) -> list[tuple[str, str]]:
    """Pairs of a tap of the student and one of the teacher.

    Args:
      student, teacher: taps from early to late.
      how: "all" pairs each with each. "depth" pairs tap i of n, counted from 1, with
        the teacher's first one that is at least at the same share of the depth.

    Example:
        >>> pair_taps(("a", "b"), ("p", "q", "r", "s"), "depth")
        [('a', 'q'), ('b', 's')]
        >>> pair_taps(("a", "b"), ("p", "q"), "all")
        [('a', 'p'), ('a', 'q'), ('b', 'p'), ('b', 'q')]
    """
    if how == "all":
        return [(ours, theirs) for ours in student for theirs in teacher]
    ours, theirs = len(student), len(teacher)
    # -(-a // b) rounds up.
    at = [-(-(i + 1) * theirs // ours) - 1 for i in range(ours)]
    return [(tap, teacher[i]) for tap, i in zip(student, at, strict=True)]


def expand_pairs(terms: Mapping[str, Term]) -> list[Paired]:
    """The terms, where one with `pair` becomes a term for each of its pairs.

    Each has the weight of the whole, and projectors of its own.
    """
    found = []
    for name, term in terms.items():
        field = f"terms.{name}"
        if not term.pair:
            found.append(Paired(name, field, term))
            continue
        taps = as_names(term.student), as_names(term.teacher)
        for ours, theirs in pair_taps(*taps, term.pair):
            one = dataclasses.replace(term, student=ours, teacher=theirs, pair="")
            found.append(Paired(f"{name} {ours}-{theirs}", field, one))
    return found
