"""Strategies by name: their commands, descriptions and files."""

import importlib
import inspect
import pathlib
import shlex

import pytest

from kdjax.cli.options import parse_job
from kdjax.config import ConfigError, Custom
from kdjax.strategies import registry
from kdjax.strategies.registry import STRATEGIES

NAMES = sorted(STRATEGIES)


def command_of(name):
    (line,) = [
        x for x in registry.describe(name).splitlines() if x.startswith("command: ")
    ]
    program, job, *words = shlex.split(line.removeprefix("command: "))
    assert program == "kdjax"
    return job, words


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_strategy_is_a_checked_config(name):
    job, words = command_of(name)
    entry = STRATEGIES[name]
    config = parse_job(job, words)
    runs = [*config.runs.values()] if hasattr(config, "runs") else [config]
    custom = [run for run in runs if isinstance(run.strategy, Custom)]
    own = [run for run in custom if run.strategy.function == name]
    assert own
    for run in own:
        assert set(entry.networks) <= set(run.networks)
        assert (run.teacher is not None) == entry.teacher


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_is_one_short_file_that_cites_its_source(name):
    module = importlib.import_module(STRATEGIES[name].function.__module__)
    file = pathlib.Path(inspect.getfile(module))
    assert file.parent.name == "methods"
    assert len(file.read_text().splitlines()) < 150
    assert module.__doc__
    paper = STRATEGIES[name].paper
    assert paper in module.__doc__


def test_every_file_of_methods_has_a_name():
    folder = pathlib.Path(inspect.getfile(registry)).parent / "methods"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    functions = [entry.function for entry in STRATEGIES.values()]
    assert files == {x.__module__.rpartition(".")[2] for x in functions}


def test_the_table_has_a_line_for_each():
    head, *lines = registry.list_strategies().splitlines()
    assert head.split() == ["name", "method", "paper", "needs"]
    assert [line.split()[0] for line in lines] == [*STRATEGIES]


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="^name: did you mean 'mutual'"):
        registry.describe("mutal")
