"""Hugging Face data sets, by a stand-in that has what `datasets.Dataset` has."""

import numpy as np
import pytest
from PIL import Image

from kdjax.config import ConfigError
from kdjax.core import fingerprint
from kdjax.data import datasets, memory, source


class ClassLabel:
    num_classes = 4
    names = ["ant", "bee", "cow", "dog"]


class Dataset:
    column_names = ["image", "label", "text"]
    features = {"image": object(), "label": ClassLabel(), "text": object()}
    _fingerprint = "abc"

    def __init__(self, images, labels, labeled=True):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        if isinstance(key, str):
            return {"label": self.labels, "text": ["?"] * len(self)}[key]
        return {"image": self.images[key], "label": self.labels[key], "text": "?"}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("wrap", [Image.fromarray, np.asarray, np.ndarray.tolist])
def test_images_labels_and_classes(pixels, wrap):
    dataset = Dataset([wrap(x) for x in pixels], [3, 0, 1])
    found = datasets.from_hugging_face(dataset)
    assert found.labels.tolist() == [3, 0, 1] and found.classes == 4
    assert found.shape == (4, 5, 3) and found.names == tuple(ClassLabel.names)
    held = memory.decode_all(datasets.take_split({"train": found}, "train[1:]", "x"))
    np.testing.assert_array_equal(held.images, pixels[1:])
    assert held.ids.tolist() == [1, 2]


def test_without_labels(pixels):
    dataset = Dataset([Image.fromarray(x) for x in pixels], [3, 0, 1])
    found = datasets.from_hugging_face(dataset, label=None)
    assert found.labels.tolist() == [-1] * 3 and found.classes == 0


@pytest.mark.parametrize("limit, counts", [(180, False), (179, True)])
def test_the_librarys_fingerprint_counts_where_not_every_pixel_does(
    pixels, monkeypatch, limit, counts
):
    """It changes when files are only moved or touched."""
    monkeypatch.setattr(fingerprint, "LIMIT", limit)

    def mark():
        dataset = Dataset([Image.fromarray(x) for x in pixels], [3, 0, 1])
        return source.fingerprint(datasets.from_hugging_face(dataset))

    before = mark()
    monkeypatch.setattr(Dataset, "_fingerprint", "abd")
    assert (mark() != before) == counts


def test_the_fingerprint_sees_files_changed_in_place(tmp_path, pixels):
    """A column of paths keeps its own fingerprint whatever the files hold."""
    for i, x in enumerate(pixels):
        Image.fromarray(x).save(tmp_path / f"{i}.bmp")

    class Paths(Dataset):
        def __getitem__(self, key):
            row = super().__getitem__(key)
            return row if isinstance(key, str) else {"image": Image.open(row["image"])}

    def mark():
        paths = [tmp_path / f"{i}.bmp" for i in range(len(pixels))]
        return source.fingerprint(datasets.from_hugging_face(Paths(paths, [3, 0, 1])))

    before = mark()
    assert mark() == before
    pixels[2, 3, 4, 1] ^= 1
    Image.fromarray(pixels[2]).save(tmp_path / "2.bmp")
    assert mark() != before
    (tmp_path / "2.bmp").write_bytes(b"nothing")
    assert mark() != before


def test_what_is_wrong_is_named(pixels):
    dataset = Dataset([Image.fromarray(x) for x in pixels], [3, 0, 1])
    with pytest.raises(ConfigError, match="from_hugging_face: expected a column of"):
        datasets.from_hugging_face(dataset, image="picture")
    with pytest.raises(ConfigError, match="column text: expected an integer for every"):
        datasets.from_hugging_face(dataset, label="text")
    with pytest.raises(ConfigError, match=r"column label: .* \[-1, 4\), got '0 to 9'"):
        datasets.from_hugging_face(Dataset(dataset.images, [3, 0, 9]))
    deep = Dataset([np.full((4, 5, 3), 256)] * 3, [0, 1, 2])
    with pytest.raises(ConfigError, match=r"example 0: expected uint8 .*int64\[4"):
        datasets.from_hugging_face(deep)
    floats = Dataset([np.zeros((4, 5, 3))] * 3, [0, 1, 2])
    with pytest.raises(ConfigError, match=r"example 0: expected uint8 .*float64\[4"):
        datasets.from_hugging_face(floats)


def test_the_first_image_says_whether_all_are_gray(pixels):
    gray, color = Image.fromarray(pixels[0, :, :, 0]), Image.fromarray(pixels[1])
    mixed = datasets.from_hugging_face(Dataset([color, gray], [0, 1]))
    assert {mixed.read(i).shape for i in (0, 1)} == {(4, 5, 3)}
    mixed = datasets.from_hugging_face(Dataset([gray, color], [0, 1]))
    assert mixed.shape == (4, 5, 1)
    with pytest.raises(ConfigError, match="data.channels: .* color in example 1"):
        mixed.read(1)
