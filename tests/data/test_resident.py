"""The set on the devices: every row where it belongs, divided over the mesh."""

import jax
import numpy as np

from kdjax.config import Compute
from kdjax.data import datasets, resident
from kdjax.train import sharding


def test_rows_come_back_by_place_on_one_and_on_eight_devices():
    splits = datasets.load_splits("digits")
    source = datasets.take_split(splits, "train[:203]", "data.train")
    places = np.array([0, 202, 17, 17])
    mesh = sharding.make_mesh(Compute(data=8), 8)
    for where in (None, mesh):
        data = resident.shard(source, where)
        got = jax.jit(resident.take)(data, places)
        np.testing.assert_array_equal(got["image"], source.images[places])
        np.testing.assert_array_equal(got["label"], source.labels[places])
        np.testing.assert_array_equal(got["id"], source.ids[places])
    assert data["image"].dtype == np.uint8 and data["image"].shape[0] == 208
    shards = {s.data.shape[0] for s in data["image"].addressable_shards}
    assert shards == {26}
