"""TensorBoard files can be read back; what is not installed is said."""

import functools
import struct
import sys
import types

import pytest
from tensorboardX.proto import event_pb2

from kdjax.config import ConfigError
from kdjax.core.runlog import RunFolderError
from kdjax.train import trackers

LINES = [
    {"kind": "train", "step": 10, "seconds": 1.5, "loss": [1.0, 3.0]},
    {"kind": "validation", "step": 10, "seconds": 1.6, "accuracy": [0.5, 0.75]},
]


def records(path):
    """The events of a TensorBoard file, read by its record format."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def events(path):
    """(tag, value, step) of every scalar in a TensorBoard file."""
    every = [(event.step, event.summary.value) for event in records(path)]
    return [(v.tag, v.simple_value, step) for step, values in every for v in values]


def test_tensorboard_gets_the_mean_over_seeds(tmp_path):
    with trackers.open_trackers(["tensorboard"], tmp_path, "run", {}) as write:
        for line in LINES:
            write(line)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    found = events(file)
    assert ("train/loss", 2.0, 10) in found
    assert ("validation/accuracy", 0.625, 10) in found
    assert len(found) == 4


def test_a_resumed_run_replaces_what_comes_again_in_tensorboard(tmp_path):
    """TensorBoard drops earlier events from the step of a session's start on."""
    for start, loss in ((0, 1.0), (5, 2.0)):
        with trackers.open_trackers(
            ["tensorboard"], tmp_path / str(start), "run", {}, start
        ) as write:
            write({"kind": "train", "step": 6, "loss": [loss]})
    for start in (0, 5):
        (file,) = (tmp_path / str(start)).glob("events.out.tfevents.*")
        sessions = [e.step for e in records(file) if e.session_log.status]
        assert sessions == [start + 1]


@pytest.fixture
def wandb(monkeypatch):
    """wandb is not installed in tests: a module with its two calls stands in.

    Like W&B it continues the run of an id, from the step after its last.
    """
    calls, last = [], {}

    def init(*, id, **options):
        def log(values, step):
            calls.append((values, step))
            last[id] = step

        calls.append({"id": id, **options})
        finish = functools.partial(calls.append, "finish")
        first = last.get(id, -1) + 1
        return types.SimpleNamespace(log=log, finish=finish, starting_step=first)

    fake = types.ModuleType("wandb")
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def test_an_interrupted_run_is_one_run_of_wandb(tmp_path, wandb):
    """Stopped at step 3, resumed from a checkpoint at step 1."""
    for first in (1, 2):
        with trackers.open_trackers(["wandb"], tmp_path, "a", {}, first - 1) as write:
            for step in range(first, first + 3):
                write({"kind": "train", "step": step, "loss": [float(step)]})
    inits = [call for call in wandb if isinstance(call, dict)]
    assert inits[0]["id"] == inits[1]["id"] and inits[1]["resume"] == "allow"
    assert [call[1] for call in wandb if isinstance(call, tuple)] == [1, 2, 3, 4]
    other = tmp_path / "other"
    other.mkdir()
    with trackers.open_trackers(["wandb"], other, "a", {}):
        assert wandb[-1]["id"] != inits[0]["id"]


def test_a_damaged_id_of_wandb_is_named(tmp_path, wandb):
    for text, why in (("", "is not JSON"), ("{}", "expected the id of a run at W&B")):
        (tmp_path / "wandb.json").write_text(text)
        with pytest.raises(RunFolderError, match=f"wandb.json.* {why}"):
            with trackers.open_trackers(["wandb"], tmp_path, "a", {}):
                pass


def test_wandb_gets_the_same_and_the_config(tmp_path, wandb):
    calls = wandb
    with trackers.open_trackers(["wandb"], tmp_path, "mine", {"steps": 3}) as write:
        write(LINES[0])
    assert calls[0]["name"] == "mine" and calls[0]["config"] == {"steps": 3}
    assert calls[1] == ({"train/seconds": 1.5, "train/loss": 2.0}, 10)
    assert calls[2] == "finish"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"trackers: wandb needs .*kdjax\[wandb\]"):
        trackers.check_installed(["wandb"])
