"""Names of hardware, against the tables of their makers."""

import pytest

from kdjax.config import ConfigError
from kdjax.plan.hardware import find_hardware

TOPOLOGIES = {
    "v5e-1": ("v5e:1x1", 1),
    "v5e-32": ("v5e:4x8", 32),
    "v5e-256": ("v5e:16x16", 256),
    "v6e-64": ("v6e:8x8", 64),
    # Cores: two of them are a chip.
    "v5p-128": ("v5p:4x4x4", 64),
    "v5p-8": ("v5p:2x2x1", 4),
    "v4-1024": ("v4:8x8x8", 512),
    "tpu7x-512": ("tpu7x:8x8x8", 512),
    "h200x8": ("1x1x8", 8),
    "h200x2": ("1x1x2", 2),
    "h200x64": ("8x1x8", 64),
    "cpu-8": ("", 8),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_topology_of_a_name(name):
    found = find_hardware(name)
    assert (found.topology, found.devices) == TOPOLOGIES[name]


def test_slices():
    found = find_hardware("v5e-256", slices=2)
    assert (found.topology, found.slices, found.devices) == ("v5e:16x16", 2, 512)
    # The hosts of GPUs are what the network joins.
    assert find_hardware("h200x64").slices == 8


REFUSED = {
    "v5e-100": "expected one of v5e-1, v5e-4, v5e-8",
    "v5p-127": "expected one of v5p-8, v5p-16",
    "h200x12": "expected 1 to 8 GPUs, or whole hosts of 8, got 'h200x12'",
    "h200x0": "expected 1 to 8 GPUs",
    "v5e256": "did you mean 'v5e-256'?",
    "abacus": "expected a name such as v5e-256",
    "cpu-0": "expected cpu-1 to cpu-512",
    "": "expected a name such as v5e-256",
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_hardware_is_named(name):
    with pytest.raises(ConfigError) as error:
        find_hardware(name)
    assert str(error.value).startswith("on: ") and REFUSED[name] in str(error.value)


@pytest.mark.parametrize("name, slices", [("v5e-8", 0), ("h200x8", 2), ("cpu-2", 2)])
def test_slices_that_are_not_there(name, slices):
    with pytest.raises(ConfigError, match="^slices: "):
        find_hardware(name, slices)
