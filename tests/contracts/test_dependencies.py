"""Every package that kdjax imports is one that pyproject.toml asks for."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from kdjax.train.trackers import PACKAGES

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What is imported under another name than it is installed by.
INSTALLED_AS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "iree": "iree-base-compiler",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}
# Only the converter of pickles needs it, which runs where torch is.
ELSEWHERE = {"torch"}


def names(requirements):
    """Of each requirement the package, as it is written in an import."""
    found = (re.match(r"[\w.-]+", text) for text in requirements)
    return {match[0].replace("-", "_").lower() for match in found if match}


def imported():
    """{package: files} of all imports, also those by name in `import_module`."""
    packages: dict[str, set[str]] = {}
    for path in (ROOT / "kdjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
                found = [a.value for a in node.args if isinstance(a, ast.Constant)]
            for name in found:
                packages.setdefault(name.split(".")[0], set()).add(path.name)
    own = {*sys.stdlib_module_names, "kdjax"}
    return {name: files for name, files in packages.items() if name not in own}


def test_what_is_imported_is_asked_for():
    extras = PROJECT["optional-dependencies"]
    asked = names(PROJECT["dependencies"]) | {
        name for rows in extras.values() for name in names(rows)
    }
    for name, files in imported().items():
        installed = INSTALLED_AS.get(name, name).replace("-", "_").lower()
        assert installed in asked | ELSEWHERE, (name, files)
    assert "huggingface_hub" in imported() and "torch" in imported()


# Folders of one user or one machine.
_OWN = re.compile(r"/(home|root|Users|mnt|media)/(?!_)\w")


def test_no_file_names_a_folder_of_one_machine():
    """Tests take paths from the environment, and are skipped without it."""
    suffixes = {".py", ".md", ".toml", ".sh", ".txt", ".yml", ".yaml"}
    folders = [ROOT / name for name in ("kdjax", "tests", "experiments", ".github")]
    files = [p for x in folders for p in x.rglob("*") if p.suffix in suffixes]
    assert len(files) > 300
    wrong = [str(p) for p in files if _OWN.search(p.read_text())]
    assert not wrong


# Required though nothing imports them by these names: needs of tensorflow-datasets.
UNDECLARED_NEEDS = {"importlib_resources"}


def test_what_is_required_is_imported():
    used = {INSTALLED_AS.get(x, x).replace("-", "_").lower() for x in imported()}
    assert names(PROJECT["dependencies"]) - used <= UNDECLARED_NEEDS


def test_messages_name_the_extra_that_has_the_package():
    extras = PROJECT["optional-dependencies"]
    assert "huggingface_hub" in names(extras["hub"])
    for package, extra in PACKAGES.values():
        assert package.lower() in names(extras[extra])


def test_the_file_for_tpus_has_every_requirement():
    """It is installed before the package, which then comes without its needs. Run
    folders of a pod are in a bucket."""
    lines = (ROOT / "requirements-tpu.txt").read_text().splitlines()
    pinned = names(x for x in lines if not x.startswith("#"))
    bucket = PROJECT["optional-dependencies"]["gs"]
    assert pinned == names(PROJECT["dependencies"]) | names(bucket)


@pytest.mark.slow
def test_the_file_for_tpus_can_be_installed():
    """By pip of the oldest Python, whose last JAX it names; nothing is installed."""
    python = shutil.which("python3.11")
    if python is None:
        pytest.skip("needs python3.11")
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q"]
    done = subprocess.run(
        [*command, "-r", str(ROOT / "requirements-tpu.txt")],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
