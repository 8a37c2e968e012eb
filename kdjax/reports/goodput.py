"""Goodput of a run: the share of its time that was spent in steps that count."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kdjax.core.timeline import PARTS

# Columns of the table, in order; `lost` is of steps that were trained again.
SPENT = ("setup", "restore", *PARTS, "lost", "steps")


class Attempt(NamedTuple):
    """A process that trained in a run folder.

    begun, ended: times of the clock; the end is that of its last event.
    total: seconds from its begin to its last event, whatever the clock did.
    first, last: the steps at which it began, and that it had reached.
    seconds: what its time went to, by the names in `SPENT`.
    reason: why it ended; empty for one that trains, or was killed.
    """

    begun: float
    ended: float
    total: float
    first: int
    last: int
    seconds: dict[str, float]
    reason: str

    @property
    def goodput(self) -> float:
        """The share of useful steps in its time; NaN for one of no time."""
        return self.seconds["steps"] / self.total if self.total else math.nan


def find_attempts(events: Sequence[dict[str, Any]]) -> list[Attempt]:
    """The attempts in the events of a run folder, in order."""
    starts = [i for i, event in enumerate(events) if event["event"] == "start"]
    groups = [events[i:j] for i, j in itertools.pairwise([*starts, len(events)])]
    # A process goes on from a checkpoint: what was made after it is made again.
    kept = [group[0]["step"] for group in groups]
    ends = [*kept[1:], math.inf]
    return [_attempt(group, ends[i]) for i, group in enumerate(groups)]


def overall(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Seconds of all attempts, by the names in `SPENT`, and those `between` them."""
    spent = {name: sum(x.seconds[name] for x in attempts) for name in SPENT}
    pairs = zip(attempts, attempts[1:], strict=False)
    return {**spent, "between": sum(max(b.begun - a.ended, 0.0) for a, b in pairs)}


def goodput(attempts: Sequence[Attempt]) -> float:
    """The share of useful steps from the first begin to the last event."""
    spent = overall(attempts)
    total = sum(x.total for x in attempts) + spent["between"]
    return spent["steps"] / total if total else math.nan


def _attempt(events: Sequence[dict[str, Any]], kept: float) -> Attempt:
    """An attempt from its events. kept: the last step that was not trained again."""
    start = events[0]
    spent: dict[str, float] = dict.fromkeys(SPENT, 0.0)
    spent.update({name: start[name] for name in ("setup", "restore")})
    last, reason = start["step"], ""
    total = start["setup"] + start["restore"]
    for event in events[1:]:
        last = max(last, event["step"])
        total += event.get("seconds", 0.0)
        if event["event"] == "end":
            reason = str(event.get("reason", ""))
            continue
        parts = {name: float(event.get(name, 0.0)) for name in PARTS}
        for name, seconds in parts.items():
            spent[name] += seconds
        rest = max(event["seconds"] - sum(parts.values()), 0.0)
        count = event["step"] - event["from"]
        if count > 0:
            useful = min(max(kept - event["from"], 0), count) / count
            spent["steps"] += useful * rest
            spent["lost"] += (1 - useful) * rest
    begun = start["time"] - start["setup"] - start["restore"]
    ended = events[-1]["time"]
    return Attempt(begun, ended, total, start["step"], last, spent, reason)
