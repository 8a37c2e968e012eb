import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["array_layouts", "hub", "load", "mismatch"])
def test_the_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"kdjax.models.weights.{module}"))
    assert result.attempted and not result.failed
