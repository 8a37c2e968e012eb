"""The table of taps in the README has the taps of the networks that it names."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import kdjax
from kdjax import config
from kdjax.models.zoo import make_model

PAGE = (pathlib.Path(kdjax.__file__).parent / "models" / "README.md").read_text()
ROWS = PAGE.split("## Taps")[1].split("\n\n")[1].splitlines()[2:]
NAMED = {
    name: taps
    for networks, taps in (row.strip("| ").split(" | ") for row in ROWS)
    for name in re.findall(r"`([^`]+)`", networks)
}


def listed(text):
    """The taps of a row: "`stage1_pre` to `stage3_pre`" stands for three."""
    ranges = re.findall(r"`([a-z]+)(\d+)(\w*)` to `[a-z]+(\d+)\w*`", text)
    layers = {
        f"{word}{i}{suffix}"
        for word, first, suffix, last in ranges
        for i in range(int(first), int(last) + 1)
    }
    return layers | set(re.findall(r"`(\w+)`", text))


@pytest.mark.full
@pytest.mark.parametrize("name", NAMED)
def test_the_table_has_the_taps_of_the_network(name):
    small = re.match(r"(resnet(8.*|20)?|wrn.*|vgg8|.*_cifar|plain.*)$", name)
    size = 32 if small else 224
    norm = "group" if name.startswith("bit") else "batch"
    model = make_model(config.ModelConfig(name=name, norm=norm, resolution=size), 10)

    def taps(key):
        images = jnp.zeros((2, size, size, 3))
        variables = model.init(key, images)
        return model.apply(variables, images, train=False, rngs=None)[0].taps

    found = jax.eval_shape(taps, jax.random.key(0))
    assert set(found) == listed(NAMED[name])


def test_ranges_are_spelled_out():
    assert listed("`stem`, `a1_pre` to `a3_pre`") == {
        "stem",
        "a1_pre",
        "a2_pre",
        "a3_pre",
    }
