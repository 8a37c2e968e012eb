"""Files of the user's: alone, or in a package whose members import one another."""

import pytest

from kdjax.config import ConfigError, load_function

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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="x: expected a file that exists, got"):
        load_function("no.py:f", "x")
    with pytest.raises(ConfigError, match="x: cannot import 'kdjax_no'"):
        load_function("kdjax_no:f", "x")
