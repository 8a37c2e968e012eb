"""Tables of the losses' README: `python -m kdjax.losses.page` writes them anew.

The rest of that page is written by hand.
"""

import inspect
import pathlib
from collections.abc import Iterable

from kdjax.losses._entry import Recipe
from kdjax.losses.registry import REGISTRY, ROOMS, Entry

PATH = pathlib.Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- tables -->\n", "<!-- end of tables -->\n"

_TITLES = {
    "logits": "Logits",
    "features": "Features and input gradients",
    "relations": "Relations between examples, and contrast",
    "sequences": "Transformers, sequences and large vocabularies",
    "dense": "Detection, segmentation and optical flow",
    "generative": "Critics, generators and synthesized images",
}


def page(text: str) -> str:
    """The text of the page with its tables written anew from the registry."""
    head, rest = text.split(_BEGIN)
    entries = list(REGISTRY.values())
    tables = [_losses(title, ROOMS[room]) for room, title in _TITLES.items()]
    body = "\n\n".join([_others(entries), _terms(entries), *tables, _helpers(entries)])
    return f"{head}{_BEGIN}\n{body}\n\n{_END}{rest.split(_END)[1]}"


def weight(entry: Entry) -> str:
    """The published weight, or that there is none and where to start."""
    if entry.weight is not None:
        return entry.weight
    return "none published" + (f"; {entry.start}" if entry.start else "")


def needs(entry: Entry) -> str:
    """Requirements besides student and teacher, in words."""
    return ", ".join([*entry.needs, *(["the whole batch"] if entry.relation else [])])


def _losses(title: str, entries: tuple[Entry, ...]) -> str:
    columns = "name method formula paper weight tap needs invariances"
    words = {"tap": "where to tap", "invariances": "invariant under"}
    names = [words.get(name, name) for name in columns.split()]
    rows = [_row(e) for e in entries if e.paper]
    return "\n".join([f"## {title}\n", _cells(names), "|---" * 8 + "|", *rows])


def _row(entry: Entry) -> str:
    about = entry.method, entry.formula, entry.paper, weight(entry), entry.tap
    return _cells([f"`{entry.name}`", *about, needs(entry), entry.invariances])


def others(entries: Iterable[Entry]) -> list[Entry]:
    """Losses whose first two arguments are not the student's and the teacher's."""
    return [e for e in entries if e.paper and not _compares_a_pair(e)]


def _compares_a_pair(entry: Entry) -> bool:
    first, second, *_ = inspect.signature(entry.function).parameters
    return first.startswith("student") and second.startswith(("teacher", "labels"))


def _others(entries: list[Entry]) -> str:
    rows = [_cells([f"`{e.name}`", f"`{_arguments(e)}`"]) for e in others(entries)]
    head = _cells(["name", "arguments without a default"])
    title = "## Losses with other arguments\n"
    return "\n".join([title, head, "|---|---|", *rows])


def _arguments(entry: Entry) -> str:
    needed = [
        p
        for p in inspect.signature(entry.function).parameters.values()
        if p.default is p.empty
    ]
    named = [f"{p.name}=" for p in needed if p.kind is p.KEYWORD_ONLY]
    return ", ".join([*(p.name for p in needed if f"{p.name}=" not in named), *named])


def _terms(entries: list[Entry]) -> str:
    """The fields of a term that runs, for each loss that can be one."""
    rows = [_cells([f"`{e.name}`", *_fields(e.term)]) for e in entries if e.term]
    head = _cells(["loss", "weight", "student", "teacher", "projector"])
    return "\n".join(["## Terms of a run\n", head, "|---|---:|---|---|---|", *rows])


def _fields(term: Recipe) -> list[str]:
    student, teacher = (f"`{' '.join(x)}`" for x in (term.student, term.teacher))
    return [f"{term.weight:g}", student, teacher, "`True`" if term.projector else ""]


def _helpers(entries: list[Entry]) -> str:
    rows = [
        _cells([f"`{e.name}`", e.method, e.formula]) for e in entries if not e.paper
    ]
    head = _cells(["name", "method", "what it is"])
    return "\n".join(["## Helpers\n", head, "|---|---|---|", *rows])


def _cells(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


if __name__ == "__main__":
    PATH.write_text(page(PATH.read_text()))
