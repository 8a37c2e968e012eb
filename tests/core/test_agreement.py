"""The odd one of several processes is found by what differs."""

import numpy as np

from kdjax.core import agreement


def rows(*texts):
    """Digests of the values of each process, `[processes, names, 32]`."""
    return np.stack([np.stack([agreement._digest(x) for x in row]) for row in texts])


def test_the_odd_one_of_three():
    names = ["data.train", "optim.lr", "steps"]
    digests = rows(["a", "1", "2"], ["a", "1", "2"], ["b", "1", "3"])
    assert agreement.odd_ones(names, digests) == {2: ["data.train", "steps"]}
    digests = rows(["b", "1", "3"], ["a", "1", "2"], ["a", "1", "2"])
    assert agreement.odd_ones(names, digests) == {0: ["data.train", "steps"]}


def test_the_second_of_two():
    digests = rows(["a", "1"], ["a", "2"])
    assert agreement.odd_ones(["x", "y"], digests) == {1: ["y"]}


def test_equal_ones_and_a_name_that_one_lacks():
    assert agreement.odd_ones(["x"], rows(["a"], ["a"], ["a"])) == {}
    assert agreement.odd_ones(["x"], rows(["a"], [None], ["a"])) == {1: ["x"]}


def test_one_process_has_nobody_to_differ_from():
    assert agreement.find_odd({"steps": "1"}) == {}
    assert agreement.find_odd_devices() == {}


def test_devices_of_another_count_or_kind(monkeypatch):
    class Device:
        def __init__(self, process, kind):
            self.process_index, self.device_kind = process, kind

    devices = [Device(0, "TPU v5e")] * 4 + [Device(1, "TPU v5e")] * 4
    devices += [Device(2, "TPU v5e")] * 3 + [Device(2, "TPU v4")]
    monkeypatch.setattr(agreement.jax, "devices", lambda: devices)
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 3)
    assert agreement.find_odd_devices() == {2: "1 x TPU v4 and 3 x TPU v5e"}
