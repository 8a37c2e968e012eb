"""Wrong input is refused before data are read, and shapes before images are decoded."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from kdjax import jobs
from kdjax.config import Compute, ConfigError, Data, FromRun, FromWeights, ModelConfig
from kdjax.core.runlog import RunFolderError
from kdjax.data import memory
from kdjax.jobs.start import lock_folder
from kdjax.models.weights import save_weights
from kdjax.setup.identity import make_identity
from tests.e2e.linear_runs import TEACHER, linear

# A data set that counts its calls, and one that cannot be read.
SETS = """
import numpy as np

CALLS = []


def small():
    CALLS.append(1)
    images = np.arange(32 * 64, dtype=np.uint8).reshape(32, 8, 8, 1) // 2
    return {k: (images, np.arange(32) % 10) for k in ("train", "validation", "test")}


def broken():
    raise RuntimeError("the data were read")
"""


@pytest.fixture
def run(tiny_run, tmp_path, monkeypatch):
    """A function making a run on a data set that cannot be read."""
    (tmp_path / "order_sets.py").write_text(SETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def make(name="broken", **changes):
        data = Data(f"order_sets:{name}", train="train")
        return tiny_run(**{"data": data, **changes})

    yield make
    sys.modules.pop("order_sets", None)


def network(**changes):
    return dataclasses.replace(ModelConfig("resnet", resolution=8), **changes)


BEFORE_DATA = {
    "model.name: did you mean 'resnet20'": {"model": network(name="resnet-20")},
    "model.weights: nowhere.npz: expected": {"model": network(weights="nowhere.npz")},
    "model.name: .*expected a file that exists": {
        "model": network(name="nowhere.py:f")
    },
    "teacher.model.weights: nowhere.npz: ": {
        "teacher": FromWeights(network(weights="nowhere.npz"))
    },
    "teacher.run: no run in nowhere: there is no": {"teacher": FromRun("nowhere")},
    "batch: expected a multiple of 3 devices": {"compute": Compute(data=3)},
    "data.name: order_sets:broken raised|data.name: broken raised": {},
}


@pytest.mark.parametrize("message", BEFORE_DATA)
def test_names_and_devices_are_checked_before_the_data(message, run):
    changed = run(**BEFORE_DATA[message])
    with pytest.raises(ConfigError, match=f"^({message})"):
        jobs.distill(changed)
    assert not changed.folder.exists()


def test_losses_and_strategies_are_checked_before_the_data(run):
    term = dataclasses.replace(run().terms["soft"], loss="softmax_kll")
    with pytest.raises(ConfigError, match="^terms.soft.loss: did you mean 'softmax_kl"):
        jobs.distill(run(terms={"soft": term}))


@pytest.fixture
def no_images(monkeypatch):
    """Decoding an image fails the test."""

    def refuse(*_, **__):
        pytest.fail("images were decoded")

    monkeypatch.setattr(memory, "decode_all", refuse)
    monkeypatch.setattr(memory, "select_decodable", refuse)


def test_splits_are_checked_before_images_are_decoded(run, no_images):
    data = dataclasses.replace(run("small").data, validation="valid")
    with pytest.raises(ConfigError, match="^data.validation: did you mean 'validation"):
        jobs.distill(run(data=data))


def test_weights_are_compared_before_images_are_decoded(run, no_images, tmp_path):
    image = np.zeros((1, 8, 8, 1), np.float32)
    variables = linear().init(jax.random.key(0), image)
    save_weights(variables, tmp_path / "other.npz")
    teacher = FromWeights(network(weights=str(tmp_path / "other.npz")))
    with pytest.raises(ConfigError, match="^teacher.model.weights: .*expected"):
        jobs.distill(run("small", teacher=teacher))


def test_a_folder_of_another_config_is_refused_before_images_are_decoded(
    run, no_images
):
    first = run("small")
    with lock_folder(first.folder, make_identity(first)):
        pass
    with pytest.raises(RunFolderError, match="steps: folder has 8, this run has 9"):
        jobs.distill(run("small", steps=9), student=linear(), teacher=TEACHER)


def test_a_function_of_data_is_called_once(run):
    jobs.distill(run("small"), student=linear(), teacher=TEACHER)
    assert sys.modules["order_sets"].CALLS == [1]


def test_a_blank_source_has_the_shapes_and_takes_no_memory():
    from kdjax.data.datasets import from_arrays
    from kdjax.data.source import resize_all

    source = from_arrays(np.ones((5, 4, 6, 3), np.uint8), np.arange(5))
    blank = memory.blank(source)
    assert blank.images.shape == (5, 4, 6, 3) and blank.images.max() == 0
    assert blank.images.strides == (0, 0, 0, 0) and blank.sizes is None
    assert (blank.labels == source.labels).all() and blank.classes == 5
    resized = memory.blank(resize_all(source, 8))
    assert resized.images.shape == (5, 8, 8, 3) and resized.sizes.shape == (5, 2)


def test_a_folder_inside_another_run_is_refused_before_data_are_read(run):
    first = run("small")
    with lock_folder(first.folder, make_identity(first)):
        pass
    inner = first.folder / "x"
    with pytest.raises(RunFolderError, match="^workdir: expected a folder outside"):
        jobs.distill(run(workdir=str(inner)))
    assert not inner.exists()
