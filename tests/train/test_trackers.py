"""TensorBoard files can be read back; what is not installed is said."""

import struct
import sys
import types

import pytest
from tensorboardX.proto import event_pb2

from kdjax.config import ConfigError
from kdjax.train import trackers

LINES = [
    {"kind": "train", "step": 10, "seconds": 1.5, "loss": [1.0, 3.0]},
    {"kind": "validation", "step": 10, "seconds": 1.6, "accuracy": [0.5, 0.75]},
]


def events(path):
    """(tag, value, step) of a TensorBoard file, read by its record format."""
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        found += [(v.tag, v.simple_value, event.step) for v in event.summary.value]
        at += 16 + length
    return found


def test_tensorboard_gets_the_mean_over_seeds(tmp_path):
    with trackers.open_trackers(["tensorboard"], tmp_path, "run", {}) as write:
        for line in LINES:
            write(line)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    found = events(file)
    assert ("train/loss", 2.0, 10) in found
    assert ("validation/accuracy", 0.625, 10) in found
    assert len(found) == 4


def test_wandb_gets_the_same_and_the_config(tmp_path, monkeypatch):
    """wandb itself is not installed in tests: a module with its two calls stands in."""
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((values, step)),
        finish=lambda: calls.append("finish"),
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with trackers.open_trackers(["wandb"], tmp_path, "mine", {"steps": 3}) as write:
        write(LINES[0])
    assert calls[0]["name"] == "mine" and calls[0]["config"] == {"steps": 3}
    assert calls[1] == ({"train/seconds": 1.5, "train/loss": 2.0}, 10)
    assert calls[2] == "finish"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"trackers: wandb needs .*kdjax\[wandb\]"):
        trackers.check_installed(["wandb"])
