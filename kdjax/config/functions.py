"""Functions and configs of the user's, named as `file.py:function`."""

import functools
import importlib
import importlib.util
import inspect
import json
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

from kdjax.config.checks import ConfigError, require, require_known
from kdjax.config.run import Run, from_dict


def load_module(place: str, field: str) -> types.ModuleType:
    """A module by name, or a Python file, which may import those beside it."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = pathlib.Path(place).resolve()
        require(path.is_file(), field, "a file that exists", place)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        # As for a script: what lies beside it comes first.
        sys.path.insert(0, str(path.parent))
        known = set(sys.modules)
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
            _forget(set(sys.modules) - known, path.parent)
        return module
    except ConfigError:
        raise
    except Exception as error:
        text = f"{field}: cannot import {place!r}: {type(error).__name__}: {error}"
        raise ConfigError(text) from error


def _forget(names: set[str], folder: pathlib.Path) -> None:
    """Let a file elsewhere import its own of the same name, not what this one found."""
    for name in names:
        file = getattr(sys.modules[name], "__file__", None)
        if file and pathlib.Path(file).resolve().parent == folder:
            del sys.modules[name]


def load_function(reference: str, field: str) -> Callable[..., Any]:
    """The function named `module:function` or `path/to/file.py:function`."""
    place, _, name = reference.rpartition(":")
    require(bool(place and name), field, "module:function", reference)
    module = load_module(place, field)
    found = getattr(module, name, None)
    if found is None:
        names = [n for n, x in vars(module).items() if callable(x) and n[:1] != "_"]
        require_known(name, names, field, f"a function in {place}, one of {names}")
    require(callable(found), field, f"a function {name!r} in {place}", found)
    assert callable(found)
    return found


def source_files(reference: str, field: str) -> list[pathlib.Path]:
    """Where `module:function` is written: the file of that name, and those that the
    function, or the methods of an object in its place, came from."""
    function: Any = load_function(reference, field)
    place = reference.rpartition(":")[0]
    named = place
    if not place.endswith(".py"):
        named = getattr(sys.modules[place], "__file__", None)
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    kind = function if inspect.isclass(function) else type(function)
    parts = [function] if inspect.isfunction(function) else vars(kind).values()
    own = [inspect.getfile(x) for x in parts if inspect.isfunction(x)]
    files = dict.fromkeys(pathlib.Path(x).resolve() for x in (named, *own) if x)
    return [file for file in files if file.is_file()]


def call(function: Callable[..., Any], field: str, *args: Any) -> Any:
    """What a user's function returns; what it raises becomes an error of `field`."""
    try:
        return function(*args)
    except ConfigError:
        raise
    except Exception as error:
        name = getattr(function, "__name__", "the function")
        text = f"{field}: {name} raised {type(error).__name__}: {error}"
        raise ConfigError(text) from error


def load_config(reference: str) -> Run:
    """A `Run` from `file.py:function` or from a run folder's `config.json`."""
    if reference.endswith(".json"):
        path = pathlib.Path(reference)
        require(path.is_file(), "config", "a file that exists", reference)
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"config: {reference} is not JSON: {error}") from error
        require(isinstance(values, dict), "config", "a table of fields", values)
        return from_dict(values)
    run = call(load_function(reference, "config"), "config")
    require(isinstance(run, Run), "config", "a function returning a Run", run)
    return run
