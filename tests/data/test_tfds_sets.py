"""Sets that TFDS has prepared: a tiny one made here, and real ones where they are."""

import shutil

import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.data import datasets, memory, source, tfds_sets
from kdjax.data.statistics import describe
from tests.data.tiny_set import N, pixels, prepare_tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("tfds"))


def test_a_folder_of_sets_is_no_pattern(prepared, tmp_path):
    moved = shutil.copytree(prepared, tmp_path / "sets[1]*")
    here, there = (
        datasets.load_splits("tfds:tiny", data_dir=str(folder))["train"]
        for folder in (prepared, moved)
    )
    assert len(there) == N and source.fingerprint(there) == source.fingerprint(here)
    np.testing.assert_array_equal(there.read(3), here.read(3))


def test_a_prepared_set_is_read_in_its_own_order(prepared):
    splits = datasets.load_splits("tfds:tiny", data_dir=prepared)
    part = datasets.take_split(splits, "train[2:]", "data.train")
    assert part.ids.tolist() == [2, 3, 4, 5, 6] and part.classes == 5
    assert part.name_of(0) == "tiny/1.2.0 train 2"
    whole = splits["train"]
    # TFDS shuffles while preparing: every image once, each with its own label.
    seen = [int(whole.read(i).shape[0]) - 4 for i in range(N)]
    assert sorted(seen) == list(range(N)) and seen != sorted(seen)
    assert whole.labels.tolist() == [i % 3 for i in seen]
    for place, i in enumerate(seen):
        np.testing.assert_array_equal(whole.read(place), pixels(i))


def test_store_makes_them_one_shape_and_keeps_their_sizes(prepared):
    splits = datasets.load_splits("tfds:tiny", data_dir=prepared, store=8, channels=1)
    held = memory.decode_all(datasets.take_split(splits, "train", "data.train"))
    assert held.images.shape == (N, 8, 8, 1)
    assert sorted(held.sizes[:, 0]) == list(range(4, 4 + N))
    assert set(held.sizes[:, 1]) == {6}


def test_the_fingerprint_is_the_same_again_and_another_for_other_channels(prepared):
    marks = [
        source.fingerprint(tfds_sets.load("tiny", prepared, c)["train"])
        for c in (0, 3, 1)
    ]
    assert marks[0] == marks[1] != marks[2]


def test_the_fingerprint_sees_a_shard_changed_in_place(prepared, tmp_path):
    shutil.copytree(f"{prepared}/tiny", tmp_path / "tiny")
    (shard,) = (tmp_path / "tiny").glob("*/*array_record*")
    whole = bytearray(shard.read_bytes())
    marks = []
    for change in (0, 1):
        whole[-1] ^= change
        train = tfds_sets.load("tiny", str(tmp_path))["train"]
        shard.write_bytes(whole)
        marks.append(source.fingerprint(train))
    first = source.fingerprint(tfds_sets.load("tiny", prepared)["train"])
    assert marks[0] == first != marks[1]


def test_loading_hashes_no_shard(prepared, monkeypatch):
    def never(*_):
        raise AssertionError("hashed unasked")

    monkeypatch.setattr(tfds_sets, "fingerprint_files", never)
    assert len(tfds_sets.load("tiny", prepared)["train"]) == N


def test_the_names_of_classes_are_known_where_they_are_no_numbers(prepared):
    import tensorflow_datasets as tfds

    assert tfds_sets.load("tiny", prepared)["train"].names == ()
    label = tfds.features.ClassLabel(names=["cat", "dog"])
    assert source.class_names(label) == ("cat", "dog")


def test_labels_of_large_sets_are_kept_on_disk(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tfds_sets, "KEEP_LABELS_FROM", 1)
    first = tfds_sets.load("tiny", prepared)["train"].labels
    (kept,) = (tmp_path / "kdjax").iterdir()
    changed = np.fromfile(kept, "<i4")[::-1]
    np.testing.assert_array_equal(changed[::-1], first)
    changed.tofile(kept)
    again = tfds_sets.load("tiny", prepared)["train"].labels
    np.testing.assert_array_equal(again, changed)


def test_what_is_not_prepared_says_how_to(prepared):
    with pytest.raises(ConfigError, match="food101 prepared by TFDS in .*, found none"):
        datasets.load_splits("food101", data_dir=prepared)
    with pytest.raises(ConfigError, match="tiny:9.9.9 prepared"):
        datasets.load_splits("tfds:tiny:9.9.9", data_dir=prepared)
    assert "train" in datasets.load_splits("tfds:tiny:1.2.0", data_dir=prepared)


@pytest.mark.data
def test_cifar_10_has_its_published_statistics():
    """Channel means and deviations as in the usual recipes; 5 000 images a class."""
    splits = datasets.load_splits("cifar10")
    train = datasets.take_split(splits, "train", "data.train")
    held = memory.decode_all(train)
    found = describe(held, at_most=50_000)
    np.testing.assert_allclose(found.mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
    np.testing.assert_allclose(found.std, [0.2470, 0.2435, 0.2616], atol=5e-5)
    assert found.counts.tolist() == [5000] * 10
    default = datasets.default_split("cifar10", "train")
    assert len(datasets.take_split(splits, default, "data.train")) == 45_000


@pytest.mark.data
def test_fashion_mnist_is_gray_and_balanced():
    splits = datasets.load_splits("fashion_mnist")
    assert splits["train"].shape == (28, 28, 1)
    assert np.bincount(splits["train"].labels).tolist() == [6000] * 10
    assert np.bincount(splits["test"].labels).tolist() == [1000] * 10


def test_a_damaged_preparation_is_named(prepared, tmp_path):
    folder = tmp_path / "tiny" / "1.2.0"
    shutil.copytree(f"{prepared}/tiny/1.2.0", folder)
    (folder / "dataset_info.json").write_text('{"name": ')
    with pytest.raises(ConfigError, match="data.train_name .tfds:tiny.: cannot be rea"):
        tfds_sets.load("tiny", str(tmp_path), field="data.train_name")
