"""Experiments in Python files: found, imported and checked."""

import dataclasses
import difflib
import pathlib
import re
import types

from kdjax.config import ConfigError, call, require, require_type
from kdjax.config.functions import load_module
from kdjax.experiments.experiment import Experiment

NAME = "EXPERIMENT"


def load_experiment(file: str | pathlib.Path) -> Experiment:
    """The `EXPERIMENT` in a Python file: a value, or a function that returns it.

    Raises:
      ConfigError: the file is missing or cannot be imported, has no `EXPERIMENT`, or
        one with an invalid field; the text names it.
    """
    path = pathlib.Path(file)
    require(path.suffix == ".py", "experiment", "a .py file", str(file))
    module = load_module(str(path), "experiment")
    if not hasattr(module, NAME):
        expected, hint = f"{NAME} = Experiment(...) in {path}", _suggestion(module)
        raise ConfigError("experiment", expected, hint=hint, shown="none")
    value = getattr(module, NAME)
    value = call(value, NAME) if callable(value) else value
    require_type(value, Experiment, NAME, f"an Experiment in {path}")
    return dataclasses.replace(value, path=path.resolve())


def _suggestion(module: types.ModuleType) -> str:
    """`did you mean 'NAME'?`, for an experiment or a similar name in the module."""
    names = [n for n in vars(module) if not n.startswith("_")]
    near = [n for n in names if isinstance(getattr(module, n), Experiment)]
    upper = {n.upper(): n for n in names}
    near += [upper[n] for n in difflib.get_close_matches(NAME, upper, 1)]
    return f"did you mean {near[0]!r}?" if near else ""


def experiment_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The files of experiments in a folder and its subfolders, sorted by path.

    Also those that assign an `Experiment` to another name, which cannot be loaded.
    """
    root = pathlib.Path(folder)
    require(root.is_dir(), "folder", "a folder of experiments", str(folder))
    line = re.compile(rb"^(def )?EXPERIMENT\b|^\w+ = Experiment\(", re.MULTILINE)
    files = [f for f in sorted(root.rglob("*.py")) if line.search(f.read_bytes())]
    expected = f"a folder with files that hold {NAME} = Experiment(...)"
    require(bool(files), "folder", expected, str(folder))
    return files
