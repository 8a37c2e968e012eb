"""Functions and configs of the user's, named as `file.py:function`."""

import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import pathlib
import pkgutil
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from kdjax.config.checks import (
    ConfigError,
    list_names,
    require,
    require_known,
    require_type,
    shorten,
)
from kdjax.config.run import Run, from_dict
from kdjax.config.stages import Stages

# False refuses files and modules that configs name: what they have is run.
_allowed = True


def forbid_code() -> None:
    """Refuse from now on, in this process, every function that a config names."""
    global _allowed
    _allowed = False


def load_module(name: str, field: str) -> types.ModuleType:
    """A module by its dotted name, or from a Python file.

    A file in a package (a folder with `__init__.py`) is imported by its dotted name,
    and may import its neighbors by theirs. A file on its own is executed anew at every
    call, and may import what is installed.

    Raises:
      ConfigError: there is no such file, or the import fails.
    """
    is_file = name.endswith(".py")
    require(_allowed, field, "no code of a file or module (--no-code)", name)
    path = pathlib.Path(name).resolve()
    if is_file and not path.is_file():
        files = [str(p) for p in sorted(pathlib.Path(name).parent.glob("*.py"))]
        require_known(os.path.normpath(name), files, field, "a file that exists")
    require(is_file or os.sep not in name, field, "a file that ends in .py", name)
    try:
        if not is_file:
            return importlib.import_module(name)
        package = _package_of(path)
        return _load_alone(path) if package is None else _load_member(path, package)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            require_known(name, _neighbors(name), field, "a module that exists")
        text = f"cannot import {name!r}: {format_exception(error, str(path))}"
        raise ConfigError(field, reason=text + _advice(path, error)) from error


def _neighbors(name: str) -> list[str]:
    """The modules in the package of a dotted name, or in the working directory."""
    package, dot, _ = name.rpartition(".")
    folders = getattr(sys.modules.get(package), "__path__", ["."])
    found = pkgutil.iter_modules(map(str, folders))
    return [f"{package}{dot}{module.name}" for module in found]


def _package_of(path: pathlib.Path) -> pathlib.Path | None:
    """The outermost folder of the package that a file is in."""
    folders = itertools.takewhile(
        lambda folder: (folder / "__init__.py").is_file(), path.parents
    )
    return next(reversed(list(folders)), None)


def _load_member(path: pathlib.Path, package: pathlib.Path) -> types.ModuleType:
    # Once imported, a package finds its members without the path.
    sys.path.insert(0, str(package.parent))
    importlib.invalidate_caches()
    try:
        file = importlib.import_module(package.name).__file__
    finally:
        sys.path.remove(str(package.parent))
    other = pathlib.Path(file or "").resolve().parent
    expected = f"the package in {package}"
    require(other == package, package.name, expected, f"the one in {other}")
    parts = path.relative_to(package.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts))


def _load_alone(path: pathlib.Path) -> types.ModuleType:
    # By its path: a package of the same name may be imported too.
    name = f"file:{path}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _advice(path: pathlib.Path, error: BaseException) -> str:
    """Advice on importing a neighbor, where that has failed."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name is None or not (path.parent / f"{name}.py").is_file():
        return ""
    folder = path.parent.name
    line = f"from {folder} import {name}"
    return f"; to import its neighbors, add {folder}/__init__.py and write `{line}`"


def load_function(reference: str, field: str) -> Callable[..., Any]:
    """The function named `module:function` or `path/to/file.py:function`."""
    file, _, name = reference.rpartition(":")
    if reference.endswith(".py"):
        file, name = reference, ""
    require(bool(file), field, "module:function", reference)
    module = load_module(file, field)
    function = getattr(module, name, None) if name else None
    if not callable(function):
        names = _functions(module)
        one_of = f"one of {list_names(names)}" if names else "which has none"
        if not names and hasattr(module, "__path__"):
            modules = sorted(x.name for x in pkgutil.iter_modules(module.__path__))
            one_of = f"which has none; its modules are {list_names(modules)}"
        require_known(name, names, field, f"a function in {file}, {one_of}")
    assert callable(function)
    return function


def _functions(module: types.ModuleType) -> list[str]:
    """The public functions that a module defines, without those that it imports."""
    own = module.__name__

    def defined_in(value: Any) -> str:
        while isinstance(value, functools.partial):
            value = value.func
        return getattr(value, "__module__", own)

    values = {k: v for k, v in vars(module).items() if k[:1] != "_" and callable(v)}
    return [name for name, value in values.items() if defined_in(value) == own]


def source_files(reference: str, field: str) -> list[pathlib.Path]:
    """The files of `module:function`: the named one, and those that define the function
    or the methods of an object in its place."""
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
    """Call a user's function; an exception becomes a `ConfigError` of `field`."""
    try:
        return function(*args)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        name = getattr(function, "__name__", "the function")
        text = f"{name} raised {format_exception(error, *definition(function))}"
        raise ConfigError(field, reason=text) from error


def definition(function: Callable[..., Any]) -> tuple[str, int]:
    """File and line of a function's definition; "" and 0 for one without code."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("", 0)


def format_exception(error: BaseException, file: str, line: int = 0) -> str:
    """`TYPE: TEXT (FILE:LINE)` in one line, for an exception in a file of the user's.

    line: used where no frame of the traceback lies in the file.
    """
    # Errors of JAX have paragraphs of advice; the first line states the error.
    text = shorten((str(error).strip().splitlines() or [""])[0])
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    last = lines[-1] if lines else line
    if not last:
        return f"{type(error).__name__}: {text}"
    relative = os.path.relpath(file)
    shown = file if relative.startswith("..") else relative
    return f"{type(error).__name__}: {text} ({shown}:{last})"


def load_config(reference: str) -> Run | Stages:
    """A `Run` from `file.py:function` or from a run folder's `config.json`.

    A function may also return `Stages`.
    """
    if reference.endswith(".json"):
        path = pathlib.Path(reference)
        require(path.is_file(), "config", "a file that exists", reference)
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            deep = isinstance(error, RecursionError)
            why = "nested too deeply" if deep else error
            text = f"{reference} is not JSON: {why}"
            raise ConfigError("config", reason=text) from error
        require_type(values, dict, "config", "a table of fields")
        return from_dict(values)
    run = call(load_function(reference, "config"), "config")
    require_type(run, (Run, Stages), "config", "a function returning a Run or Stages")
    return run
