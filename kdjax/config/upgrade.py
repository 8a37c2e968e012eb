"""Configs of earlier releases as configs of this one.

Only `config.json` files and records need it. It changes names and shapes of tables, and
never a meaning; everything unknown is passed on, and then refused by its name.
"""

from collections.abc import Mapping
from typing import Any

Table = dict[str, Any]

_DATA = {"on_corrupt": "on_error", "feed": "pipeline"}
_VIEWS = {
    "share": "crop_fraction",
    "still": "fixed_view",
    "central": "evaluation_crop",
}
_MODEL = {"pixels": "normalization"}
_TERM = {"connector": "projector"}
# Former values of renamed fields.
_VALUES = {
    "pipeline": {"resident": "device", "streamed": "host"},
    "fixed_view": {"central": "center"},
    "normalization": {"half": "symmetric"},
    "tail": {"renormalise": "renormalize"},
}
# Defaults of the former `Teacher` and its `Member`s, where they differ from today's.
_TEACHER_MODEL = {"name": "resnet", "depth": 8, "width": 8, "resolution": 8}
_TRAINING = ("train", "steps", "optim", "views")


def upgrade(values: Mapping[str, Any]) -> Table:
    """The fields of a run by their names of today."""
    run = dict(values)
    for name, names in (("data", _DATA), ("views", _VIEWS), ("model", _MODEL)):
        if isinstance(run.get(name), Mapping):
            run[name] = _rename(run[name], names)
    if isinstance(run.get("terms"), Mapping):
        terms = run["terms"].items()
        run["terms"] = {name: _rename(term, _TERM) for name, term in terms}
    if isinstance(run.get("teacher"), Mapping):
        run["teacher"] = _teacher(run["teacher"])
    return run


def _rename(table: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(table, Mapping):
        return table
    renamed = {names.get(name, name): value for name, value in table.items()}
    for name, values in _VALUES.items():
        if isinstance(renamed.get(name), str):
            renamed[name] = values.get(renamed[name], renamed[name])
    return renamed


def _teacher(values: Mapping[str, Any]) -> Table:
    """A teacher of one kind, out of a table of all fields of the former `Teacher`."""
    table, others = dict(values), values.get("also") or []
    if not _are_tables(others):
        return {"also": others}
    for name, names in (("model", _MODEL), ("views", _VIEWS), ("cache", {})):
        if name in table:
            table[name] = _rename(table[name], names)
    kind = table.get("kind", "model")
    if kind == "average" and table.keys() - {"kind", "decay"}:
        return {k: table[k] for k in ("kind", "decay") if k in table}
    if kind != "model":
        return table
    table.pop("kind", None)
    table.pop("decay", None)
    table.pop("also", None)
    shares = {k: table.pop(k) for k in ("weight", "temperature") if k in table}
    mean = {k: table.pop(k) for k in ("mean", "mean_at") if k in table}
    if not others:
        return _single(table)
    cache = {"cache": table.pop("cache")} if "cache" in table else {}
    precision = {k: v for k, v in table.items() if k == "precision"}
    every = [{**table, **shares}, *others]
    return {
        "kind": "ensemble",
        "members": [_single(_without_shares({**x, **precision})) for x in every],
        "weights": _unless_ones([x.get("weight", 1.0) for x in every]),
        "temperatures": _unless_ones([x.get("temperature", 1.0) for x in every]),
        **mean,
        **cache,
    }


def _are_tables(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(x, Mapping) for x in values)


def _unless_ones(values: list[Any]) -> list[Any]:
    return [] if all(value == 1.0 for value in values) else values


def _without_shares(table: Mapping[str, Any]) -> Table:
    return {k: v for k, v in table.items() if k not in ("weight", "temperature")}


def _single(table: Table) -> Table:
    """A former teacher by itself: a run, published weights or trained first."""
    model = _rename(table.get("model", {}), _MODEL)
    rest = {k: v for k, v in table.items() if k not in ("model", "run", "step")}
    if table.get("run"):
        step = {"step": table["step"]} if "step" in table else {}
        rest = {k: v for k, v in rest.items() if k not in _TRAINING}
        return {"kind": "run", "run": table["run"], **step, **rest}
    if isinstance(model, Mapping) and model.get("weights"):
        rest = {k: v for k, v in rest.items() if k not in _TRAINING}
        return {"kind": "weights", "model": model, **rest}
    if isinstance(model, Mapping):
        model = {**_TEACHER_MODEL, **model}
    return {"kind": "train", "model": model, **rest}
