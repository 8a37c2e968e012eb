"""Files of the user's: alone, or in a package whose members import one another."""

import sys

import pytest

from kdjax.config import ConfigError, ModelConfig, call, load_config, load_function
from kdjax.config import functions as config_functions
from kdjax.models import make_model

NEIGHBOR = "def width():\n    return 7\n"


def make(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_members_of_a_package_import_one_another(tmp_path, monkeypatch):
    """Also within functions, long after the file was loaded."""
    text = "def f():\n    from pack_a.sub.blocks import width\n    return width()\n"
    top = "from pack_a.sub import blocks\n\n\ndef g():\n    return blocks.width()\n"
    files = {
        "__init__.py": "",
        "sub/__init__.py": "",
        "sub/blocks.py": NEIGHBOR,
        "sub/net.py": text,
        "top.py": top,
    }
    folder = make(tmp_path / "pack_a", files)
    monkeypatch.chdir(tmp_path)
    function = load_function("pack_a/sub/net.py:f", "model.name")
    assert function() == 7
    assert load_function(f"{folder}/top.py:g", "model.name")() == 7
    # A member is imported once, under its dotted name.
    assert load_function("pack_a/sub/net.py:f", "model.name") is function
    assert function.__module__ == "pack_a.sub.net"


def test_two_packages_of_one_name_are_not_confused(tmp_path):
    for name, number in (("one", 1), ("two", 2)):
        text = f"def f():\n    return {number}\n"
        make(tmp_path / name / "pack_b", {"__init__.py": "", "net.py": text})
    assert load_function(f"{tmp_path}/one/pack_b/net.py:f", "x")() == 1
    with pytest.raises(ConfigError, match="pack_b: expected the package in .*two"):
        load_function(f"{tmp_path}/two/pack_b/net.py:f", "x")


def test_a_file_alone_is_executed_anew(tmp_path):
    file = tmp_path / "alone.py"
    for number in (1, 2):
        file.write_text(f"def f():\n    return {number}  {'#' * number}\n")
        assert load_function(f"{file}:f", "x")() == number


def test_a_file_alone_that_imports_its_neighbor_says_how(tmp_path):
    text = "from kdjax_blocks import width\n"
    folder = make(tmp_path / "mine", {"net.py": text, "kdjax_blocks.py": NEIGHBOR})
    with pytest.raises(ConfigError) as error:
        load_function(f"{folder}/net.py:width", "model.name")
    assert str(error.value) == (
        f"model.name: cannot import '{folder}/net.py': ModuleNotFoundError: No module "
        f"named 'kdjax_blocks' ({folder}/net.py:1); to import its neighbors, add "
        "mine/__init__.py and write `from mine import kdjax_blocks`"
    )
    (folder / "__init__.py").write_text("")
    (folder / "net.py").write_text("from mine.kdjax_blocks import width\n")
    assert load_function(f"{folder}/net.py:width", "model.name")() == 7


OWN = """\
import functools
from math import sqrt

SIZE = 3


def small():
    return 1


tiny = functools.partial(small)


def _hidden():
    return 2
"""
ITS = "one of ['small', 'tiny']"
MISSPELLED = {
    "own.py:smal": f"did you mean 'small'? expected a function in own.py, {ITS}, got ",
    "own.py:SIZE": f"expected a function in own.py, {ITS}, got 'SIZE'",
    "own.py:sqrt_": f"expected a function in own.py, {ITS}, got 'sqrt_'",
    "own.py": f"expected a function in own.py, {ITS}, got ''",
    "own.py:": f"expected a function in own.py, {ITS}, got ''",
    "empty.py:f": "expected a function in empty.py, which has none, got 'f'",
    "pack_c/own.py:smal": "did you mean 'small'? expected a function in pack_c/own.py",
    "pack_c.own:smal": "did you mean 'small'? expected a function in pack_c.own, one",
    "pack_c:f": "expected a function in pack_c, which has none; its modules are ['own",
    "pack_c.on:f": "did you mean 'pack_c.own'? expected a module that exists, got ",
    "zzzz:f": "expected a module that exists, got 'zzzz'",
    "on.py:small": "did you mean 'own.py'? expected a file that exists, got 'on.py'",
    "pack_c/on.py:f": "did you mean 'pack_c/own.py'? expected a file that exists, got ",
    "no/own.py:f": "expected a file that exists, got 'no/own.py'",
    "./pack_c:f": "expected a file that ends in .py, got './pack_c'",
    ":f": "expected module:function, got ':f'",
}


@pytest.mark.parametrize("reference", MISSPELLED)
def test_a_misspelled_name_lists_those_that_are_there(reference, tmp_path, monkeypatch):
    package = {"__init__.py": "", "own.py": OWN}
    make(tmp_path / "pack_c", package)
    make(tmp_path, {"own.py": OWN, "empty.py": "SIZE = 3\n"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("pack_c")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as error:
        load_function(reference, "model.name")
    assert str(error.value).startswith(f"model.name: {MISSPELLED[reference]}")
    assert load_function("own.py:tiny", "x")() == 1


def test_a_result_of_another_type_is_named_by_its_type(tmp_path, monkeypatch):
    """Its text may have hundreds of lines."""
    text = (
        "def config():\n    return {}\n\n\ndef model(config, classes):\n    return []\n"
    )
    make(tmp_path, {"own.py": text, "list.json": "[1]"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_config("own.py:config")
    expected = "config: expected a function returning a Run or Stages, got dict"
    assert str(error.value) == expected
    with pytest.raises(ConfigError, match="^config: expected a table .*, got list$"):
        load_config("list.json")
    with pytest.raises(ConfigError, match="^model.name: expected .*Model, got list$"):
        make_model(ModelConfig("own.py:model"), 10)


def test_a_file_that_exits_is_an_error_in_one_line(tmp_path, monkeypatch):
    text = "import sys\n\n\ndef f():\n    sys.exit(4)\n"
    make(tmp_path, {"ends.py": "import sys\n\nsys.exit(3)\n", "late.py": text})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_function("ends.py:f", "model.name")
    expected = "model.name: cannot import 'ends.py': SystemExit: 3 (ends.py:3)"
    assert str(error.value) == expected
    with pytest.raises(ConfigError) as error:
        call(load_function("late.py:f", "config"), "config")
    assert str(error.value) == "config: f raised SystemExit: 4 (late.py:5)"


def test_an_exception_that_prints_a_whole_value_is_cut():
    text = config_functions.format_exception(ValueError("1, " * 1000), "")
    assert text.startswith("ValueError: 1, 1, ") and text.endswith("...")
    assert len(text) < 300
