"""References from a variant's config to the pretraining runs of its experiment."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

_PREFIX = "sweep:"


def ref(name: str) -> str:
    """A reference to a run of `Experiment.pretrain`, in place of its folder.

    For `FromRun.run` or `model.weights` of a variant. A sweep inserts the folder.
    """
    return _PREFIX + name


def refs_in(config: Any) -> set[str]:
    """The names of the pretraining runs that a config refers to."""
    names: set[str] = set()

    def note(name: str) -> str:
        names.add(name)
        return name

    _replace_refs(config, note)
    return names


def resolve_refs(config: Any, root: pathlib.Path) -> Any:
    """The same config with folders under `root` in place of references."""
    return _replace_refs(config, lambda name: str(root / name))


def _replace_refs(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        is_ref = value.startswith(_PREFIX)
        return change(value.removeprefix(_PREFIX)) if is_ref else value
    if isinstance(value, dict):
        return {k: _replace_refs(v, change) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_replace_refs(v, change) for v in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **_replace_refs(fields, change))
