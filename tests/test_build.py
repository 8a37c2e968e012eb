"""The examples of a run, by the fields of its config."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from kdjax import build
from kdjax.config import Compute, ConfigError, Data, Run, labelled

ONE = Compute(data=1)


@pytest.fixture
def photos(tmp_path):
    """PATH/{train,validation,test}/{a,b}: images of several sizes; one is damaged."""
    rng = np.random.default_rng(0)
    for i in range(12):
        split = ("train", "validation", "test")[i % 3]
        path = tmp_path / split / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6 + i, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    damaged = tmp_path / "train/a/0.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return f"folder:{tmp_path}"


def load(split, **fields):
    data = Data(train="default", validation="default", test="default", **fields)
    return build.load_source(dataclasses.replace(Run(), data=data), split)


def test_a_folder_at_one_size_without_its_damaged_image(photos):
    with pytest.warns(UserWarning, match="data.train: left out 1 of 4 images: .*0.png"):
        train = load("train", name=photos, store=8, on_corrupt="skip")
    assert train.images.shape == (3, 8, 8, 3) and train.ids.tolist() == [1, 2, 3]
    assert train.labels.tolist() == [0, 1, 1] and train.sizes[0].tolist() == [12, 9]
    with pytest.raises(ValueError, match="train/a/0.png: cannot be decoded"):
        load("train", name=photos, store=8)
    with pytest.raises(ValueError, match="expected shape .* as the images before"):
        load("test", name=photos)


def test_other_images_to_teach_on_have_no_labels_but_the_classes_of_the_set(photos):
    fields = dict(name="digits", train_name=photos, store=8, channels=1)
    with pytest.warns(UserWarning, match="left out 1 of 4"):
        other = load("train", on_corrupt="skip", **fields)
    assert other.images.shape == (3, 8, 8, 1) and other.classes == 10
    assert other.labels.tolist() == [-1, -1, -1]
    test = load("test", **fields)
    assert test.shape == other.shape and len(test) == 597 and test.labels.min() == 0
    run = Run(seeds=1, batch=2)
    with pytest.raises(ConfigError, match="data.train: expected a label .*3 of 3"):
        build.make_parts(labelled(run), train=other)


def test_crops_of_stored_images_know_their_own_sizes(photos):
    """A whole update is traced with sizes, on the labels of the folder."""
    train = load("validation", name=photos, store=8)
    run = Run(seeds=1, batch=2, teacher=None, compute=ONE)
    run = labelled(run)
    build.check_fit(run, train=train, student=None, teacher=None)
    parts = build.make_parts(run, train=train)
    given = build.place_given(parts)
    rows = {"place": np.array([0, 1]), "epoch": np.zeros(2, np.int32)}
    batch = {"seed": 0, "step": np.int32(0), "rows": rows}
    seen = jax.jit(lambda: parts.view(np.int32(0), batch, given))()
    squares = {**given, "data": {**given["data"], "size": np.full((4, 2), 8)}}
    other = jax.jit(lambda: parts.view(np.int32(0), batch, squares))()
    assert seen.student.shape == (2, 8, 8, 3)
    assert np.abs(np.asarray(seen.student) - np.asarray(other.student)).max() > 0.01
