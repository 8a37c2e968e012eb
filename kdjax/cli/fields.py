"""Options of the commands that take a `Run`: one for each of its fields, by path."""

import dataclasses
import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from kdjax.config import ConfigError, Run, near_names
from kdjax.config.plain import UNIONS

# Options of other tools, with the fields that do the same here.
_ELSEWHERE = {
    "data_set": "data.name",
    "dataset": "data.name",
    "data_path": "data.name",
    "arch": "model.name",
    "architecture": "model.name",
    "student": "model.name",
    "pretrained": "model.weights",
    "checkpoint": "model.weights",
    "image_size": "model.resolution",
    "img_size": "model.resolution",
    "teacher_weights": "teacher.model.weights",
    "teacher_checkpoint": "teacher.model.weights",
    "teacher_arch": "teacher.model.name",
    "t": "terms.soft.temperature",
    "alpha": "terms.soft.weight",
    "optimizer": "optim.name",
    "out": "workdir",
    "output": "workdir",
    "output_dir": "workdir",
    "log_dir": "workdir",
    "save_dir": "workdir",
    "gpus": "compute.data",
    "devices": "compute.data",
}


def walk(hint: Any, value: Any = None, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, type) of every field in a type, tables before their fields.

    Of a sum type the fields of all its members, those of `value` first; of a table of
    entries those that `value` has.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from walk(inner[0], value, at)
    elif origin in UNIONS:
        members = [c for c in inner if dataclasses.is_dataclass(c)]
        for member in sorted(members, key=lambda c: not isinstance(value, c)):  # type: ignore[arg-type]
            same = value if isinstance(value, member) else None  # type: ignore[arg-type]
            yield from walk(member, same, at)
        if not members:
            yield at, hint
    elif dataclasses.is_dataclass(hint):
        if at:
            yield at, hint
        for name, kind in get_type_hints(hint, include_extras=True).items():
            inside = f"{at}.{name}" if at else name
            yield from walk(kind, getattr(value, name, None), inside)
    elif origin is dict and inner and dataclasses.is_dataclass(inner[1]):
        yield at, hint
        for name, entry in (value or {}).items():
            yield from walk(inner[1], entry, f"{at}.{name}")
    else:
        yield at, hint


def fields_of(run: Run) -> dict[str, Any]:
    """The type of each field by its dotted path."""
    found: dict[str, Any] = {}
    for path, hint in walk(Run, run):
        found.setdefault(path, hint)
    return found


def near_options(path: str, run: Run, count: int = 3) -> list[str]:
    """The options that a path may stand for, such as --optim.lr for `lr`.

    The last part of the path counts first, then the whole.
    """
    path = path.replace("-", "_")
    known = fields_of(run)
    fields = [x for x, hint in known.items() if not is_table(hint)]
    if run.teacher is None and not path.startswith("teacher"):
        fields = [x for x in fields if not x.startswith("teacher.")]
    if path in known:
        # A table: its name, or its file, is what a word can stand for.
        inside = [f"{path}.{x}" for x in ("name", "run", "path", "loss", "value")]
        near = [x for x in inside if x in fields]
    else:
        first, _, last = path.rpartition(".")
        leaves = dict.fromkeys(x.rpartition(".")[2] for x in fields)
        leaf = near_names(last, leaves, 1)
        near = [x for x in fields if x.rpartition(".")[2] in leaf]
        near.sort(key=lambda x: -_similarity(path, x) if first else x.count("."))
        near = [x for x in near if first and x.startswith(f"{first}.")] or near
        elsewhere = _ELSEWHERE.get(path.lower(), "")
        near = [elsewhere] if elsewhere in fields else near
    return [f"--{x.replace('_', '-')}" for x in near[:count]]


def require_leaf(path: str, words: list[str], run: Run) -> None:
    """Refuse a word for a table of fields, such as `--model resnet20`."""
    hint = fields_of(run).get(path.replace("-", "_"))
    plain = len(words) == 1 and words[0][:1] not in ("{", "")
    number = hasattr(hint, "from_number")
    if not plain or number or not is_table(hint) or words[0].lower() == "none":
        return
    near = near_options(path, run, 1)
    text = f"did you mean {near[0]} {words[0]}?" if near else ""
    raise ConfigError(f"--{path}", "one of its fields", words[0], hint=text)


def choices(hint: Any) -> list[str]:
    """The values of a field that has a few by name."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(x) for x in inner]
    if hint is bool:
        return ["True", "False"]
    if origin in (tuple, Annotated) or origin in UNIONS:
        return [
            x for kind in inner if kind is not types.NoneType for x in choices(kind)
        ]
    return []


def _similarity(a: str, b: str) -> float:
    return difflib.SequenceMatcher(a=a, b=b).ratio()


def is_table(hint: Any) -> bool:
    """True for a type with fields of its own, and no number in their place."""
    entries = get_origin(hint) is dict and dataclasses.is_dataclass(get_args(hint)[1])
    return entries or (
        dataclasses.is_dataclass(hint) and not hasattr(hint, "from_number")
    )
