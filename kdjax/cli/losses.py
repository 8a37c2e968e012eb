"""`kdjax losses`: a table of the losses, one of them in full, or those for a goal."""

import inspect
import textwrap
from typing import Annotated

import tyro

from kdjax.cli.arguments import fail


def run(name: Annotated[str, tyro.conf.Positional] = "", goal: str = "") -> None:
    """Losses by method, paper or goal.

    Args:
        name: A loss, method, acronym or paper ("dkd", "ReviewKD", "2104.09044").
        goal: Words for the purpose, such as "match features of other width".
    """
    if name and goal:
        fail("goal: expected no goal with a name, got both")
    if name:
        _print_named(name)
    else:
        _print_table(goal)


def _print_named(text: str) -> None:
    from kdjax import losses

    entries = losses.find(text)
    if not entries:
        fail(f"name: expected a loss, method or paper, got {text!r}{_hint(text)}")
    # An exact name comes first, where other losses have it as a second name.
    alone = len(entries) == 1 or entries[0].name == text
    print(describe(entries[0]) if alone else _table(entries))


def _print_table(goal: str) -> None:
    from kdjax import losses
    from kdjax.losses import registry

    everything = list(losses.REGISTRY.values())
    entries = registry.find_goal(goal) if goal else everything
    if not entries:
        goals = textwrap.fill("; ".join(registry.goals()), 88)
        fail(f"goal: expected words of one of these goals, got {goal!r}\n{goals}")
    print(_table(entries))


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
        **_use(entry),
    }
    lines = [f"{entry.name}: {entry.method}", "", _call(entry), ""]
    for word, text in rows.items():
        if text:
            # Commands stay on one line, to be copied.
            width = 10_000 if word in ("in a run", "from Python") else 88
            more = " " * 14
            lines.append(
                textwrap.fill(f"{word:12}  {text}", width, subsequent_indent=more)
            )
    return "\n".join([*lines, "", inspect.getdoc(entry.function) or ""])


def _use(entry) -> dict[str, str]:
    """The term of a run with this loss, or the reason why there is none."""
    if not entry.term:
        return {"as a term": f"none: {entry.missing}" if entry.paper else ""}
    taps = ", ".join(entry.term.unnamed)
    own = f"{taps}: stands for a tap of a network of your own" if taps else ""
    names = "stem, stage1, ..., embedding (kdjax/models/README.md)"
    named = names if entry.term.student != ("logits",) else ""
    return {
        "in a run": f"kdjax distill {entry.term.command(entry.name)}",
        "from Python": entry.term.python(entry.name),
        "tap names": own or named,
    }


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
    from kdjax import losses
    from kdjax.losses import registry

    near = registry.nearest(text, losses.REGISTRY)
    return f"; did you mean {' or '.join(near)}?" if near else ""
