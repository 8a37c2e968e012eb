"""Identity of a run: the comparison with a run folder before it is used.

`config.json` in a run folder holds the identity of its run in three parts:

    fields of the config   compared, except those in `FREE`
    "given"                overrides: objects passed from Python, a line each
    "content"              fingerprints of the inputs, by name

A folder of another run is refused, and every difference is listed. Of the inputs, only
those with a fingerprint in both runs are compared: folders of older versions lack
some, and a teacher that is yet to be trained has none.
"""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from kdjax import config as configs
from kdjax.config import ConfigError, Custom, Run
from kdjax.config.model import OPEN
from kdjax.core import bucket, runlog
from kdjax.core.fingerprint import (
    fingerprint_arrays,
    fingerprint_code,
    fingerprint_function,
    fingerprint_shapes,
    is_abstract,
)
from kdjax.core.types import STUDENT, BoundModel, PyTree
from kdjax.data.source import Source, fingerprint
from kdjax.models import zoo
from kdjax.setup.load_models import complete_models
from kdjax.strategies import kernels

# Fields with which a run may continue though they differ, and the reason of each.
FREE = {
    "name": "a label in tables and figures",
    "workdir": "a folder may be moved",
    "compute.how": "both ways to compile a step compute the same",
    **dict.fromkeys(
        ("compute.data", "compute.fsdp", "compute.shard"),
        "the devices, and how they share parameters, change speed, not results",
    ),
    "compute.remat": "results are equal up to rounding, as on other devices",
    "compute.steps_per_call": "the number of steps in a call changes speed alone",
    "compute.several_processes": "the same batches come of any number of processes",
    **dict.fromkeys(
        ("compute.meet_within", "compute.lost_after"),
        "they matter where a process is lost",
    ),
    "trackers": "they receive a copy of the metrics",
    "skip": "without it the run ends where a step would be left out",
    "data.pipeline": "both input pipelines yield the same batches",
    "data.workers": "the number of threads changes speed, not results",
    "data.data_dir": "the images are compared by their fingerprints",
    "given.splits": "the images are compared by their fingerprints",
}
# Free as well, if both runs have one: a cache is compared by its own manifest.
_CACHE_PATH = "teacher.cache.path"
_NOTHING = object()


@dataclasses.dataclass(frozen=True)
class Identity:
    """Config, overrides and inputs of a run. A part that is None is not compared.

    config: the fields of a `Run`, as plain values.
    overrides: a line for each object passed from Python: "splits", "model", "teacher".
    content: fingerprints of the inputs: "train", "validation", "test", "teacher",
        "model", "start" (initial weights of the student), "terms.NAME.loss" and other
        user code, "networks.NAME" (initial weights of other networks),
        "NAME connector" (those of projectors).
    """

    config: Mapping[str, Any] | None = None
    overrides: Mapping[str, str] | None = None
    content: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def add(self, content: Mapping[str, str]) -> "Identity":
        """The same identity with further fingerprints."""
        return dataclasses.replace(self, content={**self.content, **content})


def make_identity(
    run: Run,
    overrides: Mapping[str, str] | None = None,
    content: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a run; without further arguments its config alone is compared.

    run: with every field of its models, as `complete_models` returns it.
    content: fingerprints, as the functions `fingerprint_...` of this module make them.
    """
    config = configs.to_dict(run)
    config["workdir"] = bucket.find_url(run.folder) or config["workdir"]
    return Identity(config, overrides, content or {})


def identify_planned(run: Run) -> Identity:
    """The identity of a run whose published weights may not be here yet."""
    try:
        return make_identity(complete_models(run)[0])
    except ConfigError:
        return make_identity(run)


def identify(
    run: Run,
    *,
    student: PyTree = None,
    teacher: BoundModel | None = None,
    start: Mapping[str, PyTree] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a run with fingerprints of all its inputs but the data.

    Args:
      student: the shapes of the variables of a model passed from Python.
      teacher: its teacher; one of shapes, yet to be trained, has no fingerprint.
      start: initial weights by network, where the seeds do not draw them.
      overrides: a line for each object passed from Python.
    """
    content = fingerprint_teacher(teacher)
    content |= fingerprint_student(run, student, start or {})
    return make_identity(run, overrides or {}, content)


def parse_identity(values: Mapping[str, Any]) -> Identity:
    """The identity that is written in a `config.json`."""
    config = dict(values)
    overrides, content = config.pop("given", {}), config.pop("content", {})
    return Identity(config, overrides, content)


def read_identity(folder: runlog.Path) -> Identity:
    """The identity of the run in a folder; `RunFolderError` where there is none."""
    return parse_identity(runlog.read_config(folder))


def fingerprint_data(data: Mapping[str, Source]) -> dict[str, str]:
    """Fingerprints of examples by split: "train", "validation", "test"."""
    return {split: fingerprint(source) for split, source in data.items()}


def fingerprint_teacher(teacher: BoundModel | None) -> dict[str, str]:
    """Fingerprint of a teacher's variables and of user code in it, as "teacher".

    Empty without a teacher, and for one that is yet to be trained.
    """
    if teacher is None or is_abstract(teacher.variables):
        return {}
    code = [text for text in teacher.code if text]
    return {"teacher": " ".join([fingerprint_arrays(teacher.variables), *code])}


def fingerprint_student(
    run: Run, student: PyTree, start: Mapping[str, PyTree]
) -> dict[str, str]:
    """Fingerprints of the networks that a run trains, and of user code in its loss.

    Args:
      student: the shapes of the variables of a model passed from Python; None for the
        model of the config.
      start: initial weights by network, where the seeds do not draw them.
    """
    if student is None:
        model = zoo.fingerprint_model(run.model)
    else:
        model = fingerprint_shapes(student)
    content = {"model": model} if model else {}
    fields = {STUDENT: "start", **{name: f"networks.{name}" for name in run.networks}}
    for name, variables in start.items():
        # A projector has the name of its network.
        content[fields.get(name, name)] = fingerprint_arrays(variables)
    for name, network in run.networks.items():
        field = f"networks.{name}.model"
        code = zoo.fingerprint_model(network.model, field)
        content |= {field: code} if code else {}
    return content | fingerprint_functions(run)


def fingerprint_functions(run: Run) -> dict[str, str]:
    """Fingerprints of losses and strategy from user code, by the field naming them."""
    functions: dict[str, Any] = {}
    if isinstance(run.strategy, Custom):
        functions["strategy.function"] = run.strategy.function
    else:
        functions["strategy.controller"] = run.strategy.controller
        for name, term in run.terms.items():
            functions[f"terms.{name}.loss"] = term.loss
            functions[f"terms.{name}.example_weights"] = term.example_weights
    content = {field: _fingerprint(x, field) for field, x in functions.items()}
    return {field: text for field, text in content.items() if text}


def _fingerprint(function: Any, field: str) -> str:
    """Fingerprint of a function or of the file naming it; empty for one of kdjax."""
    if callable(function):
        return fingerprint_function(function)
    if ":" not in function or function.startswith(configs.PYTHON):
        return ""
    files = configs.source_files(function, field)
    name = function.rpartition(":")[2]
    return fingerprint_code(name, *(file.read_bytes() for file in files))


def as_effective(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config as it takes effect, as plain values.

    A field that is younger than the config has its default: that is what was done
    before there was a choice. Terms have today's names and their temperatures.
    """
    try:
        config = {**config, **configs.to_dict(configs.from_dict(config))}
    except ConfigError:
        pass  # Other values are compared as they are.
    terms = config.get("terms")
    if not isinstance(terms, Mapping):
        return config
    effective = {
        name: kernels.as_effective(term) if isinstance(term, Mapping) else term
        for name, term in terms.items()
    }
    return {**config, "terms": effective}


def find_differences(old: Identity, new: Identity) -> list[str]:
    """Differences between two runs, a line each: the field, the old and the new value.

    Empty where the one may continue as the other.
    """
    tables: list[dict[str, Any]] = [{}, {}]
    if old.config is not None and new.config is not None:
        tables = [dict(as_effective(x)) for x in (old.config, new.config)]
    if old.overrides is not None and new.overrides is not None:
        for table, identity in zip(tables, (old, new), strict=True):
            table["given"] = identity.overrides
    both_cached = all(map(_cache_path, tables))
    free = {*FREE, _CACHE_PATH} if both_cached else {*FREE}
    changed = find_changed_inputs(old, new)
    return [f"{x}; use another --workdir" for x in changed] + _compare(
        tables[0], tables[1], free
    )


def find_changed_inputs(old: Identity, new: Identity) -> list[str]:
    """Inputs whose fingerprints differ: `FIELD: INPUT changed since the run began`."""
    config = new.config or old.config or {}
    both = sorted(old.content.keys() & new.content.keys())
    return [
        f"{_name_input(name, config)} changed since the run began"
        for name in both
        if old.content[name] != new.content[name]
    ]


def _name_input(name: str, config: Mapping[str, Any]) -> str:
    """The field and the file, or else a description, of an input with a fingerprint."""
    if name in ("train", "validation", "test"):
        return f"data.{name}: its images or labels"
    if name == "teacher":
        path = _get(config, "teacher.run") or _get(config, "teacher.model.weights")
        return f"teacher: the weights or code{path and f' of {path}'}"
    if name == "start":
        return f"model.weights: {_get(config, 'model.weights')}"
    if name != "model" and "." not in name:
        return f"the weights of {name}"
    field = "model.name" if name == "model" else name
    file = _get(config, field).rpartition(":")[0]
    if name == "model" and not file:
        return "model: the shapes of its variables"
    return f"{field}: {file or 'its function'}"


def _get(config: Any, field: str) -> str:
    """The text in a field of a config; empty where there is none."""
    for name in field.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config if isinstance(config, str) else ""


def _cache_path(config: Mapping[str, Any]) -> str:
    return ((config.get("teacher") or {}).get("cache") or {}).get("path") or ""


def warn_of_changes(
    folder: runlog.Path, content: Mapping[str, str], consequence: str
) -> None:
    """Warn of each input that changed since the run in a folder began.

    content: fingerprints of inputs as they are now.
    """
    old = read_identity(folder)
    for line in find_changed_inputs(old, Identity(old.config, content=content)):
        warnings.warn(f"{line}; {consequence}", stacklevel=3)


def _compare(
    old: Mapping[str, Any], new: Mapping[str, Any], free: set[str], at: str = ""
) -> list[str]:
    lines = []
    for name in sorted({*old, *new}):
        field = f"{at}{name}"
        a, b = old.get(name, _NOTHING), new.get(name, _NOTHING)
        if field in free:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += _compare(a, b, free, f"{field}.")
        elif a != b and not _is_open(field, a, b):
            a, b = ("nothing" if x is _NOTHING else json.dumps(x) for x in (a, b))
            lines.append(f"{field}: folder has {a}, this run has {b}")
    return lines


def _is_open(field: str, a: Any, b: Any) -> bool:
    """True for a field of a model that one of the runs leaves to published weights.

    Weights are compared by their fingerprints.
    """
    parent, _, name = field.rpartition(".")
    return parent.endswith("model") and name in OPEN and OPEN[name] in (a, b)


def refuse_other(
    folder: runlog.Path, identity: Identity, old: Identity | None = None
) -> None:
    """Refuse the folder of another run, and one with files that are no run's.

    Writes nothing.

    Args:
      identity: the run that is to be in the folder.
      old: the run that is in it; by default the one that its `config.json` names.

    Raises:
      RunFolderError: naming the folder and every difference.
    """
    if old is None:
        config = runlog.find_config(folder)
        if config is None:
            return
        old = parse_identity(config)
    lines = find_differences(old, identity)
    if lines:
        lines.insert(0, f"workdir: {folder} holds another run:")
        raise runlog.RunFolderError("\n  ".join(lines))


def open_folder(folder: runlog.Path, identity: Identity) -> pathlib.Path:
    """Create the folder of a run, or return to it: its path.

    Fingerprints that its `config.json` lacks are added.

    Raises:
      RunFolderError: as `refuse_other`, or the folder cannot be written; what was
      made of it is removed.
    """
    refuse_other(folder, identity)
    assert identity.config is not None
    parts = {"given": identity.overrides, "content": identity.content}
    new = {**identity.config, **{k: v for k, v in parts.items() if v}}
    path = runlog.open_run(folder, new)
    config = runlog.read_config(path)
    content = {**identity.content, **config.get("content", {})}
    if content != config.get("content", {}):
        runlog.write_json(path / "config.json", {**config, "content": content})
    return path
