"""What of a state is divided, and what a mesh refuses."""

import jax
import numpy as np
import pytest

from kdjax.config import Compute, ConfigError
from kdjax.train import sharding


def specs(shapes, fsdp, lead=1):
    mesh = sharding.make_mesh(Compute(data=8 // fsdp, fsdp=fsdp), 8)
    tree = {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
    return {k: tuple(s.spec) for k, s in sharding.state_sharding(mesh, tree).items()}


def test_large_arrays_are_divided_along_their_largest_axis_that_divides():
    shapes = {
        "conv": (3, 3, 3, 16, 64),
        "odd": (3, 3, 3, 63, 64),
        "small": (3, 3, 3, 2, 2),
        "bias": (3, 64),
        "count": (3,),
        "never the seeds": (4096, 3, 5),
    }
    assert specs(shapes, fsdp=4) == {
        "conv": (None, None, None, None, "fsdp"),
        "odd": (None, None, None, None, "fsdp"),
        "small": (),
        "bias": (),
        "count": (),
        "never the seeds": (),
    }
    assert set(specs(shapes, fsdp=1).values()) == {()}


def test_more_devices_than_there_are():
    with pytest.raises(ConfigError, match="at most the 8 devices there are, got 16"):
        sharding.make_mesh(Compute(data=8, fsdp=2), 16)
    with pytest.raises(ConfigError, match="at most the 8 devices there are, got 9"):
        sharding.make_mesh(Compute(fsdp=9), 9)


def test_a_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match="batch: expected a multiple of 8.*got 12"):
        sharding.make_mesh(Compute(data=8), 12)


def test_all_devices_by_default():
    assert dict(sharding.make_mesh(Compute(fsdp=2), 8).shape) == {"data": 4, "fsdp": 2}


SHAPES = {"params": {"student": {"head": {"kernel": (2, 64, 128), "bias": (2, 128)}}}}


def by_pattern(shard, fsdp=4):
    mesh = sharding.make_mesh(Compute(data=8 // fsdp, fsdp=fsdp), 8)
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    tree = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, np.float32), SHAPES, is_leaf=is_shape
    )
    found = sharding.state_sharding(mesh, tree, shard=shard)
    return {k: tuple(x.spec) for k, x in found["params"]["student"]["head"].items()}


@pytest.mark.parametrize(
    ("shard", "kernel", "bias"),
    [
        ({}, (None, None, "fsdp"), ()),
        ({"student/head/kernel": 0}, (None, "fsdp"), ()),
        ({"kernel": -1}, (), ()),
        ({"head/*": 0}, (None, "fsdp"), (None, "fsdp")),
        ({"head/bias": 0, "*": -1}, (), (None, "fsdp")),
        # No other network, and no part of a name.
        ({"teacher/*": -1, "ernel": -1}, (None, None, "fsdp"), ()),
    ],
)
def test_patterns_of_the_config_come_before_the_rule(shard, kernel, bias):
    assert by_pattern(shard) == {"kernel": kernel, "bias": bias}


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ({"haed/*": 0}, r"shard.haed/\*: expected a pattern of parameters such as"),
        (
            {"kernel": 1},
            r"shard.kernel: expected an axis of .*kernel \(64, 126\)",
        ),
        ({"bias": 1}, r"shard.bias: expected an axis of .*bias \(128,\)"),
    ],
)
def test_patterns_that_fit_nothing(shard, message):
    head = {"kernel": np.zeros((64, 126)), "bias": np.zeros(128)}
    params = {"student": {"head": head}}
    with pytest.raises(ConfigError, match=message):
        sharding.check_shard(params, shard, 4, lead=0)
    sharding.check_shard(params, {"head/kernel": 0, "bias": -1}, 4, lead=0)
