"""`kdjax losses`: a table of the losses, one of them in full, or those for a goal."""

import difflib
import inspect
import sys
import textwrap
from typing import Annotated

import tyro


def run(args: list[str]) -> None:
    """Print what the arguments ask for; an unknown name ends with exit status 2."""

    def options(
        name: Annotated[str, tyro.conf.Positional] = "", goal: str = ""
    ) -> None:
        """Losses by method, paper or goal.

        Args:
            name: A loss, method, acronym or paper ("dkd", "ReviewKD", "2104.09044").
            goal: Words for the purpose, such as "match features of other width".
        """
        if name and goal:
            _fail("goal: expected no goal with a name, got both")
        if name:
            _print_named(name)
        else:
            _print_table(goal)

    tyro.cli(options, prog="kdjax losses", args=args)


def _print_named(text: str) -> None:
    from kdjax import losses

    found = losses.find(text)
    if not found:
        _fail(f"name: expected a loss, method or paper, got {text!r}{_hint(text)}")
    # An exact name comes first, where other losses have it as a second name.
    alone = len(found) == 1 or found[0].name == text
    print(describe(found[0]) if alone else _table(found))


def _print_table(goal: str) -> None:
    from kdjax import losses

    found = losses.find(goal) if goal else list(losses.REGISTRY.values())
    if not found:
        _fail(f"goal: expected words of a goal that losses have, got {goal!r}")
    print(_table(found))


def describe(entry) -> str:
    """One loss in full: its method, its call with options and defaults, its use."""
    from kdjax.losses import page

    rows = {
        "formula": entry.formula,
        "paper": entry.paper,
        "weight": page.weight(entry) if entry.paper else "",
        "tap": entry.tap,
        "needs": page.needs(entry),
        "invariances": entry.invariances,
        "also called": ", ".join(entry.aliases),
        "good for": ", ".join(entry.goals),
        "in a run": f'Term(loss="{entry.name}")' if entry.term else "",
    }
    lines = [f"{entry.name}: {entry.method}", "", _call(entry), ""]
    for word, text in rows.items():
        if text:
            more = " " * 14
            lines.append(
                textwrap.fill(f"{word:12}  {text}", 88, subsequent_indent=more)
            )
    return "\n".join([*lines, "", inspect.getdoc(entry.function) or ""])


def _call(entry) -> str:
    """The signature without types, one option a line."""
    parameters = inspect.signature(entry.function).parameters.values()
    lines, starred = [f"losses.{entry.name}("], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            lines.append("    *,")
            starred = True
        default = "" if p.default is p.empty else f"={p.default!r}"
        lines.append(f"    {p.name}{default},")
    return "\n".join([*lines, ")"])


def _table(entries) -> str:
    width = max(len(e.name) for e in entries)
    lines, room = [], ""
    for entry in entries:
        if entry.room != room and len(entries) > 1:
            room = entry.room
            lines.append(f"{room}:")
        lines.append(f"  {entry.name:{width}}  {entry.method}")
    return "\n".join(lines)


def _hint(text: str) -> str:
    """The nearest spelling, as a question."""
    from kdjax.losses.registry import spellings

    known = spellings()
    near = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _fail(text: str) -> None:
    print(f"kdjax: {text}", file=sys.stderr)
    raise SystemExit(2)
