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
