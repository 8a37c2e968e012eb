"""Splits, ids and the errors of sources."""

import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.data import datasets


@pytest.fixture(scope="module")
def digits():
    return datasets.load_splits("digits")


def test_digits_are_the_published_1797_in_three_disjoint_parts(digits):
    sizes = {name: len(labels) for name, (_, labels) in digits.items()}
    assert sizes == {"train": 1000, "validation": 200, "test": 597}
    everything = np.concatenate([images for images, _ in digits.values()])
    from sklearn.datasets import load_digits

    raw = load_digits().images.reshape(-1, 64)
    ours = everything.reshape(-1, 64).astype(np.float64) * 16 / 255
    np.testing.assert_array_equal(np.sort(np.round(ours), axis=0), np.sort(raw, axis=0))
    counts = np.bincount(np.concatenate([y for _, y in digits.values()]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_the_same_every_time(digits):
    again = datasets.load_splits("digits")
    for name in digits:
        np.testing.assert_array_equal(digits[name][0], again[name][0])


@pytest.mark.parametrize(
    "text, first, n",
    [
        ("train", 0, 1000),
        ("train[:200]", 0, 200),
        ("train[200:]", 200, 800),
        ("train[10%:90%]", 100, 800),
        ("train[90%:]", 900, 100),
        ("train[-5:]", 995, 5),
        ("train[-10%:-5%]", 900, 50),
        ("train[:]", 0, 1000),
    ],
)
def test_sub_splits_keep_the_ids_of_the_whole_split(digits, text, first, n):
    source = datasets.take_split(digits, text, "data.train")
    np.testing.assert_array_equal(source.ids, np.arange(first, first + n))
    np.testing.assert_array_equal(source.images, digits["train"][0][first : first + n])
    np.testing.assert_array_equal(source.labels, digits["train"][1][first : first + n])
    assert source.classes == 10 and source.images.dtype == np.uint8


@pytest.mark.parametrize(
    "text, message",
    [
        ("train[200:200]", r"data.train: expected a split with examples .*200:200"),
        ("train[5000:]", r"data.train: expected bounds within its 1000 examples"),
        ("holdout", r"data.train: expected one of the splits .* got 'holdout'"),
        ("train[:1001]", r"data.train: expected bounds within its 1000 examples"),
        ("train[-1001:]", r"data.train: expected bounds within its 1000 examples"),
        ("train[:200%]", r"data.train: expected bounds .* got 'train\[:200%\]'"),
        ("train[-101%:]", r"data.train: expected bounds within .* and 100%"),
        ("train[90%:10%]", r"data.train: expected .* a start before its stop"),
        ("train[5:5]", r"data.train: expected .* a start before its stop"),
        ("train[:x]", r"data.train: expected a split as train, train\[:200\], .*-5%:"),
        ("train[abc]", r"data.train: expected a split as train, .*'train\[abc\]'"),
        ("train[-:]", r"data.train: expected a split as"),
        ("train[:%]", r"data.train: expected a split as"),
        ("train[5]", r"data.train: expected a split as"),
        ("", r"data.train: expected a split as"),
    ],
)
def test_bad_splits_are_named(digits, text, message):
    with pytest.raises(ConfigError, match=message):
        datasets.take_split(digits, text, "data.train")


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (
            np.zeros((4, 8, 8), np.uint8),
            np.zeros(4, int),
            r"images: expected uint8 \[n",
        ),
        (np.zeros((4, 8, 8, 1)), np.zeros(4, int), r"images: .*float64\[4, 8, 8, 1\]"),
        (
            np.zeros((4, 8, 8, 1), np.uint8),
            np.zeros(3, int),
            r"labels: .*integers \[4\]",
        ),
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4), r"labels: .*float64\[4\]"),
        (
            np.zeros((4, 8, 8, 1), np.uint8),
            np.full(4, -1),
            r"labels: expected class ids .*-1 to -1",
        ),
    ],
)
def test_bad_arrays_are_named(images, labels, message):
    with pytest.raises(ConfigError, match=message):
        datasets.take_split({"train": (images, labels)}, "train", "data.train")


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 28, 28), (4, 3, 5, 7)])
def test_channels_first_is_refused(shape):
    split = np.zeros(shape, np.uint8), np.arange(4)
    with pytest.raises(ConfigError, match="images: expected channels last, uint8 .n, "):
        datasets.take_split({"train": split}, "train", "data.train")
    last = np.moveaxis(split[0], 1, -1)
    datasets.take_split({"train": (last, split[1])}, "train", "data.train")


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 1, 1, 3), (4, 3, 8, 1)])
def test_small_images_are_not_channels_first(shape):
    split = np.zeros(shape, np.uint8), np.arange(4)
    assert datasets.take_split({"train": split}, "train", "x").shape == shape[1:]


def test_a_share_of_a_shuffled_set(digits):
    """Shares cut by one seed are those of one permutation: apart, and complete."""
    shares = [f"train[{a}:{b}]" for a, b in (("", 200), (200, "70%"), ("70%", ""))]
    parts = [datasets.take_split(digits, x, "x", shuffle_seed=3) for x in shares]
    assert [len(part) for part in parts] == [200, 500, 300]
    ids = np.concatenate([part.ids for part in parts])
    np.testing.assert_array_equal(np.sort(ids), np.arange(1000))
    first = np.sort(np.random.RandomState(3).permutation(1000)[:200])
    np.testing.assert_array_equal(parts[0].ids, first)
    np.testing.assert_array_equal(parts[0].images, digits["train"][0][first])
    other = datasets.take_split(digits, shares[0], "x", shuffle_seed=4)
    assert not np.array_equal(other.ids, parts[0].ids)
    whole = datasets.take_split(digits, "train", "x", shuffle_seed=3)
    np.testing.assert_array_equal(whole.ids, np.arange(1000))


def test_an_unknown_set_is_named():
    with pytest.raises(ConfigError, match="data.name: expected folder:PATH.*digits"):
        datasets.load_splits("dreams")
    hint = "data.name: did you mean 'cifar10' or 'cifar100'.* of cifar10, cifar100, ..."
    with pytest.raises(ConfigError, match=hint):
        datasets.load_splits("cifar")


def test_a_folder_without_its_prefix_is_named_with_it(tmp_path):
    with pytest.raises(ConfigError, match=f"did you mean 'folder:{tmp_path}'?"):
        datasets.load_splits(str(tmp_path))


def test_a_set_of_the_users_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    x = np.zeros((6, 4, 4, 3), np.uint8)\n"
        "    return {'train': (x, np.array([0, 1, 2, 3, 4, 5]))}\n"
    )
    splits = datasets.load_splits(f"{tmp_path / 'mine.py'}:load")
    assert datasets.take_split(splits, "train", "data.train").classes == 6
    with pytest.raises(ConfigError, match="data.name: .*'absent'"):
        datasets.load_splits(f"{tmp_path / 'mine.py'}:absent")
