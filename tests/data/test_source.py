"""Ids, fingerprints, joins, and images of several sizes or that cannot be decoded."""

import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.data import datasets, memory, source
from kdjax.data.images import ImageError


def made(n, seed=0, classes=3, shape=(4, 6, 3)):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(n) % classes)


def lazy(whole, broken=()):
    """The same examples read one by one, some of them damaged."""

    def read(place):
        if place in broken:
            raise ImageError(f"{whole.name_of(place)}: cannot be decoded")
        return whole.images[place]

    return source.dataclasses.replace(whole, read=read, images=None)


def test_joined_ids_start_where_the_part_before_ends():
    first, second = made(5), made(4, seed=1)
    both = source.concatenate([first, second])
    np.testing.assert_array_equal(both.ids, np.arange(9))
    np.testing.assert_array_equal(both.labels, [0, 1, 2, 0, 1, 0, 1, 2, 0])
    for place in range(9):
        want = first.images[place] if place < 5 else second.images[place - 5]
        np.testing.assert_array_equal(both.read(place), want)
    tail = source.select(both, slice(3, 8, 2))
    np.testing.assert_array_equal(tail.ids, [3, 5, 7])
    np.testing.assert_array_equal(tail.read(1), second.images[0])
    assert both.name_of(6) == "images 1"


def test_joining_needs_one_shape_and_one_meaning_of_labels():
    with pytest.raises(ConfigError, match="sources: expected images of one shape"):
        source.concatenate([made(3), made(3, shape=(5, 6, 3))])
    with pytest.raises(ConfigError, match=r"sources: .*classes, got \[2, 3\]"):
        source.concatenate([made(3), made(3, classes=2)])
    other = source.drop_labels(made(3, classes=2))
    both = source.concatenate([made(3), other])
    assert both.classes == 3 and (both.labels[3:] == -1).all()
    with pytest.raises(ConfigError, match="data.train: expected a label .*3 of 6"):
        source.check_labeled(both, "data.train")
    source.check_labeled(made(3), "data.train")


def test_classes_without_names_are_joined_by_number():
    named = source.dataclasses.replace(made(3), names=("a", "b", "c"))
    for parts in ([named, made(3)], [made(3), named]):
        both = source.concatenate(parts)
        assert both.names == ("a", "b", "c") and both.classes == 3
    more = source.dataclasses.replace(made(4, classes=4), names=("a", "b", "c", "d"))
    with pytest.raises(ConfigError, match=r"\['a', 'b', 'c'\] and \['a', 'b', 'c', 'd"):
        source.concatenate([named, more])
    other = source.dataclasses.replace(made(3), names=("a", "c", "b"))
    with pytest.raises(ConfigError, match="sources: expected parts with the same"):
        source.concatenate([named, made(3), other])
    source.concatenate([named, source.drop_labels(other)])


def test_images_without_labels_come_as_none():
    images = np.zeros((4, 3, 3, 1), np.uint8)
    part = datasets.take_split({"train": (images, None)}, "train[1:]", "data.train")
    assert part.classes == 0 and part.labels.tolist() == [-1, -1, -1]


def test_a_fingerprint_changes_with_any_pixel_label_id_or_shape():
    base = source.fingerprint(made(6))
    assert source.fingerprint(made(6)) == base and len(base) == 16
    images = made(6).images.copy()
    images[3, 2, 1, 0] ^= 1
    others = [
        datasets.from_arrays(images, np.arange(6) % 3),
        datasets.from_arrays(made(6).images, np.array([0, 1, 2, 0, 2, 1])),
        source.select(made(6), slice(1, 6)),
        source.drop_labels(made(6)),
        source.resize_all(made(6), 8),
    ]
    marks = {base, *(source.fingerprint(x) for x in others)}
    assert len(marks) == 6
    held = memory.decode_all(lazy(made(6)))
    assert source.fingerprint(held) == base


def test_the_fingerprints_of_existing_folders_stay():
    """Those of the first versions; other ones would refuse every folder and cache."""
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1)
    labeled = datasets.from_arrays(images, [0, 1, 0])
    assert labeled.content() == (
        "850ca0a9ba8db4fd6976ffdb9099c5c65a196b2f8d697cc795b319e7ec981f53"
    )
    assert source.fingerprint(labeled) == "fec614338451a8a3"
    assert source.fingerprint(datasets.from_arrays(images, None)) == "74f3c0554ee6e3e5"


def test_stored_images_are_resized_once_and_keep_their_own_size():
    rng = np.random.default_rng(0)
    shapes = [(8, 4, 3), (4, 8, 3), (6, 6, 3)]
    images = [rng.integers(0, 256, s, dtype=np.uint8) for s in shapes]
    one = source.dataclasses.replace(
        made(3, shape=(8, 4, 3)), read=lambda i: images[i], images=None
    )
    held = memory.decode_all(source.resize_all(one, 4), workers=2)
    assert held.images.shape == (3, 4, 4, 3) and held.skipped == ()
    assert held.sizes.tolist() == [[8, 4], [4, 8], [6, 6]]
    # Bilinear with antialias of (8, 4) to (4, 4): rows by the triangle 1 3 3 1.
    rows = images[0].astype(np.float64)
    want = (rows[1] + 3 * rows[2] + 3 * rows[3] + rows[4]) / 8
    np.testing.assert_allclose(held.images[0, 1], want, atol=0.51)
    image, size = source.load(held, 1)
    assert size == (4, 8) and image.shape == (4, 4, 3)
    for on_error in ("raise", "skip"):
        with pytest.raises(ImageError, match=r"images 1: expected shape \(8, 4, 3\)"):
            memory.decode_all(one, on_error=on_error)


def test_damaged_images_are_named_or_left_out_with_their_ids():
    whole = made(200)
    damaged = lazy(whole, broken={3, 150})
    with pytest.raises(ImageError, match="images 3: cannot be decoded"):
        memory.decode_all(damaged, workers=1)
    held = memory.decode_all(damaged, on_error="skip", workers=3)
    good = np.setdiff1d(np.arange(200), [3, 150])
    want = tuple(f"images {i}: cannot be decoded" for i in (3, 150))
    assert held.skipped == want
    np.testing.assert_array_equal(held.ids, good)
    np.testing.assert_array_equal(held.images, whole.images[good])
    np.testing.assert_array_equal(held.labels, whole.labels[good])
    np.testing.assert_array_equal(held.read(3), whole.images[4])
    left = memory.select_decodable(damaged, on_error="skip")
    assert left.images is None and left.skipped == want
    np.testing.assert_array_equal(left.ids, good)
    np.testing.assert_array_equal(left.read(3), whole.images[4])
    assert memory.select_decodable(damaged) is damaged
    with pytest.raises(ConfigError, match="on_error: .*none of 200; the first: im"):
        memory.decode_all(lazy(whole, range(200)), on_error="skip")
    with pytest.raises(ConfigError, match="on_error: expected raise or skip"):
        memory.decode_all(damaged, on_error="ignore")


def test_a_name_may_join_several_sets(tmp_path):
    for name, fill in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.py").write_text(
            "import numpy as np\n"
            "def load():\n"
            f"    x = np.full((3, 4, 4, 1), {fill}, np.uint8)\n"
            "    return {'train': (x, np.arange(3)), 'only_%d' % x[0, 0, 0, 0]: None}\n"
        )
    name = "+".join(f"{tmp_path / x}.py:load" for x in "ab")
    wide = f"{name}+digits"
    with pytest.raises(ConfigError, match="train_name .train.: expected images of one"):
        dict(datasets.load_splits(wide, field="data.train_name"))
    splits = datasets.load_splits(name)
    assert list(splits) == ["train"]
    part = datasets.take_split(splits, "train[2:4]", "data.train")
    assert part.ids.tolist() == [2, 3] and part.labels.tolist() == [2, 0]
    assert [int(part.read(i)[0, 0, 0]) for i in range(2)] == [1, 2]
    stored = datasets.load_splits(name, store=2)["train"]
    assert stored.shape == (2, 2, 1) and stored.resizes


def test_a_plus_in_a_path_joins_nothing(tmp_path):
    (tmp_path / "c++" / "a+digits.d").mkdir(parents=True)
    (tmp_path / "c++" / "my+sets.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    return {'train': (np.zeros((2, 8, 8, 1), np.uint8), np.arange(2))}\n"
    )
    name = f"{tmp_path}/c++/my+sets.py:load"
    assert len(datasets.load_splits(name)["train"][0]) == 2
    with pytest.raises(ConfigError, match=r"/c[+][+]/a[+]digits\.d\): expected"):
        datasets.load_splits(f"folder:{tmp_path}/c++/a+digits.d")
    with pytest.raises(ConfigError, match="got 'mnits'"):
        datasets.load_splits("digits+mnits")


def test_the_paper_s_splits():
    found = {
        name: [
            datasets.default_split(name, role)
            for role in ("train", "validation", "test")
        ]
        for name in ("food101", "imagenet2012", "flowers102", "digits", "cifar10")
    }
    assert found == {
        "food101": ["train[:90%]", "train[90%:]", "validation"],
        "imagenet2012": ["train[:98%]", "train[98%:]", "validation"],
        "flowers102": ["train", "validation", "test"],
        "digits": ["train", "validation", "test"],
        "cifar10": ["train[:90%]", "train[90%:]", "test"],
    }


def test_channels_of_arrays_are_made_what_is_asked_for():
    color = made(3)
    gray = source.convert_channels(color, 1)
    assert (
        gray.shape == (*color.shape[:2], 1) and source.convert_channels(gray, 0) is gray
    )
    luma = color.images.astype(np.float64) @ [0.299, 0.587, 0.114]
    held = memory.decode_all(gray)
    np.testing.assert_allclose(held.images[..., 0], luma, atol=0.51)
    back = memory.decode_all(source.convert_channels(held, 3))
    np.testing.assert_array_equal(back.images, np.repeat(held.images, 3, axis=3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ids": np.zeros(6, np.int32)}, "x ids: expected another id for every"),
        ({"ids": np.arange(2)}, r"x ids: expected 6, one an example, got \[2\]"),
        ({"classes": 2}, r"x labels: expected labels in \[-1, 2\), got '0 to 2'"),
        ({"labels": np.full(6, -2)}, "x labels: expected labels .* got '-2 to -1'"),
    ],
)
def test_a_source_with_wrong_rows_is_named(change, message):
    one = source.dataclasses.replace(made(6), **change)
    with pytest.raises(ConfigError, match=message):
        source.check_rows(one, "x")
