"""A student that begins from a run of its own, and what it says to its views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import jobs, setup
from kdjax.config import Compute, ConfigError, ModelConfig, labels_only, to_dict
from kdjax.core import runlog
from kdjax.core.runlog import RunFolderError
from kdjax.models.weights import save_weights
from kdjax.train import sharding
from kdjax.train.checkpoint import Checkpoints

# Runs of convolutional networks: the full tier.
pytestmark = pytest.mark.full


@pytest.fixture
def early(tiny_run, tmp_path):
    """A finished run of two seeds, and a function making runs that begin from it."""
    folder = tmp_path / "early"
    run = labels_only(tiny_run(workdir=str(folder), seeds=2), teacher=None)
    parts, state = first_state(run)
    # Not what its seeds would draw.
    state = state._replace(params=jax.tree.map(lambda x: x + 1, state.params))
    runlog.open_run(folder, to_dict(run))
    checkpoints = Checkpoints(folder)
    checkpoints.save(state._replace(step=state.step + 1), 1, 0.5)
    checkpoints.close()
    summary = {"classes": 10, "channels": 1, "test": {"accuracy": [0.5, 0.5]}}
    runlog.write_json(folder / "summary.json", summary)

    def later(**changes):
        model = dataclasses.replace(run.model, weights=str(folder))
        return dataclasses.replace(run, model=model, **changes)

    return folder, later


def first_state(run):
    parts = setup.make_parts(run, train=setup.load_source(run, "train"))
    seeds = np.arange(run.seed, run.seed + run.seeds, dtype=np.int32)
    make = parts.make_state, parts.mesh, seeds, parts.start
    return parts, sharding.create_sharded(*make)


def begun(run):
    """The student's parameters before the first update, a set a seed."""
    return first_state(run)[1].params["student"]


MODEL = """
from kdjax.models import from_function

def make(config, classes):
    def init(key, images):
        return {"w": jnp.zeros((images[0].size, classes))}
    def apply(params, images):
        return images.reshape(len(images), -1) @ params["w"]
    return from_function(apply, init=init)

import jax.numpy as jnp
"""


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_of_the_model_and_the_start_that_it_began_with(
    tiny_run, tmp_path, finished
):
    file, start = tmp_path / "mine.py", tmp_path / "start.safetensors"
    file.write_text(MODEL)
    save_weights({"params": {"w": np.ones((64, 10), "f")}}, start)
    model = ModelConfig(name=f"{file}:make", weights=str(start), resolution=8)
    run = labels_only(tiny_run(model=model), teacher=None)
    folder = jobs.train(run)
    if not finished:
        (folder / "summary.json").unlink()

    def refused(field):
        with pytest.raises(
            RunFolderError, match=f"{field} changed since the run began"
        ):
            jobs.train(run)

    file.write_text(MODEL.replace("images.reshape", "-images.reshape"))
    refused("mine.py")
    file.write_text(MODEL)
    save_weights({"params": {"w": np.zeros((64, 10), "f")}}, start)
    refused("start.safetensors")
    save_weights({"params": {"w": np.ones((64, 10), "f")}}, start)
    assert jobs.train(run) == folder


def test_every_seed_begins_from_its_own(early, monkeypatch):
    folder, later = early
    mesh = sharding.make_mesh(Compute(data=1), 1)
    trained = setup.load_trained(folder, mesh)
    own = trained.variables["params"]
    both, second = begun(later()), begun(later(seed=1, seeds=1))
    for x, y, z in zip(*map(jax.tree.leaves, (own, both, second)), strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x[1:], z)
    assert any(not np.array_equal(x[0], x[1]) for x in jax.tree.leaves(own))
    with pytest.raises(ConfigError, match="weights: expected a run of seeds 0 to 2"):
        begun(later(seeds=3))
    wide = dataclasses.replace(later().model, width=4)
    message = r"^model.width: expected 2, that of .*early, got 4$"
    with pytest.raises(ConfigError, match=message):
        begun(dataclasses.replace(later(), model=wide))
    # The picture of its views says what the first seed takes them for.
    shown = {}
    monkeypatch.setattr(
        "kdjax.reports.view_grid.write_views",
        lambda path, rows, **rest: shown.update(rest, rows=rows),
    )
    jobs.show_views(setup.read_run(folder), count=3)
    images = jnp.asarray(dict(shown["rows"])["student"])
    first = jax.tree.map(lambda x: x[0], trained.variables)
    logits = np.asarray(trained.model.apply(first, images)[0].logits, np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for row, text in zip(shares, shown["notes"]["student"], strict=True):
        best = int(row.argmax())
        assert text.startswith(f"{100 * row[best]:.0f} % class {best}\n")
    assert list(shown["notes"]) == ["student"] and len(images) == 3
