"""Folders of image files: classes, ids, and what is wrong with them."""

import os

import numpy as np
import pytest
from PIL import Image

from kdjax.config import ConfigError
from kdjax.data import datasets, folder, memory, source


@pytest.fixture
def tree(tmp_path):
    """PATH/train/{ant,bee,cow}, PATH/test/{bee} and unlabeled PATH/more."""
    rng = np.random.default_rng(0)
    pixels = {}
    for name in ("train/cow/1", "train/ant/2", "train/ant/1", "train/bee/1"):
        pixels[name] = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels["test/bee/9"] = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels["more/1"] = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    for name, x in pixels.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    (tmp_path / "train/ant/notes.txt").write_text("no image")
    (tmp_path / "train/ant/.hidden.png").write_text("no image")
    return tmp_path, pixels


def test_a_class_per_folder_in_the_order_of_names(tree):
    path, pixels = tree
    splits = datasets.load_splits(f"folder:{path}")
    assert sorted(splits) == ["more", "test", "train"]
    train = datasets.take_split(splits, "train", "data.train")
    want = ["train/ant/1", "train/ant/2", "train/bee/1", "train/cow/1"]
    assert train.labels.tolist() == [0, 0, 1, 2] and train.classes == 3
    assert train.ids.tolist() == [0, 1, 2, 3] and train.shape == (4, 5, 3)
    held = memory.decode_all(train)
    np.testing.assert_array_equal(held.images, np.stack([pixels[k] for k in want]))
    assert train.name_of(2) == str(path / "train/bee/1.png")


def test_a_path_is_no_pattern(tmp_path):
    put(tmp_path / "photos[1]*", "train", ["[a]", "b?"])
    train = datasets.load_splits(f"folder:{tmp_path}/photos[1]*")["train"]
    assert train.names == ("[a]", "b?") and train.read(1).max() == 1


def test_a_split_may_lack_classes_or_labels(tree):
    splits = folder.load(str(tree[0]))
    assert splits["test"].labels.tolist() == [1] and splits["test"].classes == 3
    assert splits["more"].labels.tolist() == [-1] and splits["more"].classes == 0


def test_channels_are_those_of_the_first_image_or_those_asked_for(tree):
    path, _ = tree
    assert folder.load(str(path), channels=1)["train"].shape == (4, 5, 1)
    gray = np.zeros((4, 5), np.uint8)
    Image.fromarray(gray).save(path / "train/cow/0.png")
    train = folder.load(str(path))["train"]
    assert {train.read(i).shape for i in range(5)} == {(4, 5, 3)}


def test_the_fingerprint_sees_another_file(tree):
    path, _ = tree
    before = source.fingerprint(folder.load(str(path))["train"])
    assert source.fingerprint(folder.load(str(path))["train"]) == before
    os.rename(path / "train/ant/1.png", path / "train/ant/3.png")
    assert source.fingerprint(folder.load(str(path))["train"]) != before


def another(path, place):
    """Change one byte of a file and nothing else about it, its times included."""
    times = os.stat(path)
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_fingerprint_sees_a_file_changed_in_place(tree):
    path, _ = tree

    def mark():
        return source.fingerprint(folder.load(str(path))["train"])

    first = mark()
    another(path / "train/cow/1.png", -1)
    second = mark()
    another(path / "train/cow/1.png", -1)
    assert second != first == mark()


def test_loading_a_folder_hashes_nothing(tree, monkeypatch):
    def never(*_):
        raise AssertionError("hashed unasked")

    monkeypatch.setattr(folder, "fingerprint_files", never)
    train = folder.load(str(tree[0]))["train"]
    assert memory.decode_all(train).images.shape == (4, 4, 5, 3)


def put(root, split, names):
    """Gray images that differ, one for each class."""
    for i, name in enumerate(names):
        path = root / split / name / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 5), i, np.uint8)).save(path)


def test_classes_are_joined_by_name(tmp_path):
    known = {"A": ["cat", "dog"], "B": ["cat", "dog"], "C": ["bird", "dog"]}
    for name, classes in known.items():
        put(tmp_path / name, "train", classes)
    a, b, c = (f"folder:{tmp_path / name}" for name in known)
    both = datasets.load_splits(f"{a}+{b}")["train"]
    assert both.labels.tolist() == [0, 1, 0, 1] and both.names == ("cat", "dog")
    want = r"data.name \(train\): .*same.*\['cat', 'dog'\] and \['bird', 'dog'\]"
    with pytest.raises(ConfigError, match=want):
        datasets.load_splits(f"{a}+{b}+{c}")["train"]
    # Images to teach on, whose labels are not used, may be of anything.
    other = datasets.load_splits(f"{a}+{c}", labeled=False)["train"]
    assert other.labels.tolist() == [-1] * 4 and other.classes == 0


def test_many_class_names_are_shown_where_they_differ(tmp_path):
    first = [f"{i:02}" for i in range(20)]
    put(tmp_path / "A", "train", first)
    put(tmp_path / "B", "train", [*first[:15], "new", *first[16:]])
    want = r"20 with \['15', '16', '17'\] from number 15 on and 20 with \['16', '17'"
    with pytest.raises(ConfigError, match=want):
        datasets.load_splits(f"folder:{tmp_path / 'A'}+folder:{tmp_path / 'B'}")[
            "train"
        ]


def test_what_is_wrong_is_named(tree):
    path, _ = tree
    with pytest.raises(ConfigError, match="data.name .*nowhere.*: expected a folder"):
        folder.load(str(path / "nowhere"))
    (path / "train/dog").mkdir()
    want = (
        r"train/dog: expected images \(.jpg, .*\) in every class folder, got {}; remove"
    )
    with pytest.raises(ConfigError, match=want.format("an empty folder")):
        dict(folder.load(str(path)))
    (path / "train/dog/1.gif").write_text("no image")
    with pytest.raises(ConfigError, match=want.format("only 1.gif")):
        dict(folder.load(str(path)))
    (path / "train/dog/1.gif").unlink()
    (path / "train/dog").rmdir()
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path / "train/stray.png")
    with pytest.raises(ConfigError, match=r"train: expected .* got both \(stray.png"):
        dict(folder.load(str(path)))
    (path / "train/stray.png").unlink()
    (path / "train/gone").symlink_to(path / "nowhere")
    with pytest.raises(
        ConfigError, match="train/gone: expected .* got 'a link to nothing'"
    ):
        dict(folder.load(str(path)))
    (path / "train/gone").unlink()
    (path / "void").mkdir()
    with pytest.raises(ConfigError, match="void: expected images or class folders"):
        dict(folder.load(str(path)))


@pytest.mark.parametrize("how", ["cut", "a link to nothing"])
def test_a_damaged_file_is_named(tree, how):
    path, _ = tree
    file = path / "train/bee/1.png"
    whole = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.symlink_to(path / "nowhere.png")
    train = folder.load(str(path))["train"]
    with pytest.raises(ValueError, match="train/bee/1.png: cannot be decoded"):
        memory.decode_all(train)
    held = memory.decode_all(train, on_error="skip")
    assert held.ids.tolist() == [0, 1, 3] and "train/bee/1.png" in held.skipped[0]


def test_a_folder_where_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/1.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="train: expected images, the first 1 cannot"):
        dict(folder.load(str(tmp_path)))
    with pytest.raises(ConfigError, match=r"1.jpg: .* cannot identify image file$"):
        dict(folder.load(str(tmp_path)))


def test_color_among_gray_is_named_and_never_lost_unasked(tmp_path):
    """Gray in train, color in test: the first image of the first split decides."""
    rng = np.random.default_rng(0)
    shapes = {"a_train/x/1": (4, 5), "a_train/y/2": (4, 5), "b_test/x/3": (4, 5, 3)}
    for name, shape in shapes.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    want = "data.channels: expected gray images, as .*x/1.png .*in .*b_test/x/3.png"
    with pytest.raises(ConfigError, match=want):
        dict(folder.load(str(tmp_path)))
    gray = Image.fromarray(np.zeros((4, 5), np.uint8))
    gray.save(tmp_path / "b_test/x/0.png")
    later = folder.load(str(tmp_path))["b_test"]
    assert later.shape == (4, 5, 1)
    with pytest.raises(ConfigError, match=want):
        memory.decode_all(later, on_error="skip")
    for channels in (1, 3):
        made = folder.load(str(tmp_path), channels)
        assert {s.read(0).shape for s in made.values()} == {(4, 5, channels)}


def test_a_url_is_no_folder():
    with pytest.raises(ConfigError, match="data.name: .* on this machine .*'gs://b/x'"):
        datasets.load_splits("folder:gs://b/x")


def test_an_empty_path_is_not_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree[0])
    want = "data.name: expected folder:PATH, got 'folder:'"
    for name in ("folder:", "folder: "):
        with pytest.raises(ConfigError, match=want):
            datasets.load_splits(name)


def test_folders_of_classes_without_the_split_are_named_as_splits(tmp_path):
    for name in "ab":
        put(tmp_path, name, ["x"])
    want = r"data.train: expected one of the splits \['a', 'b'\], got 'train'"
    used = {"train", "validation", "test"}
    splits = datasets.load_splits(f"folder:{tmp_path}", store=8, used=used)
    with pytest.raises(ConfigError, match=want):
        datasets.take_split(splits, "train", "data.train")


def test_only_splits_in_use_define_classes(tmp_path):
    put(tmp_path, "train", ["cat", "dog"])
    put(tmp_path, "test", ["cat"])
    put(tmp_path, "backup", ["0_old", "cat"])
    (tmp_path / "notes" / "0_empty").mkdir(parents=True)
    splits = datasets.load_splits(f"folder:{tmp_path}", used={"train", "test"})
    assert sorted(splits) == ["backup", "notes", "test", "train"]
    assert splits["train"].names == ("cat", "dog") == splits["test"].names
    assert splits["train"].labels.tolist() == [0, 1]
    every = folder.load(str(tmp_path), used={"train", "backup"})["train"]
    assert every.labels.tolist() == [1, 2] and every.names == ("0_old", "cat", "dog")


def test_folders_that_are_no_split_in_use_are_not_read(tmp_path):
    """Documents, and a run whose workdir lies in the folder, beside the splits."""
    for split in ("train", "test"):
        put(tmp_path, split, ["cat", "dog"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/readme.txt").write_text("no image")
    put(tmp_path, "run", ["teacher"])
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "run/views.png")
    used = {"train", "test"}
    splits = datasets.load_splits(f"folder:{tmp_path}", store=8, used=used)
    assert sorted(splits) == ["docs", "run", "test", "train"]
    assert splits["test"].labels.tolist() == [0, 1] and splits["test"].classes == 2


def test_splits_without_a_class_in_common_are_refused(tmp_path):
    """Tiny ImageNet has its validation images in val/images, with a table of labels."""
    put(tmp_path, "train", ["n01", "n02", "n03", "n04"])
    put(tmp_path, "val", ["images"])
    want = (
        r"val: expected class folders as in .*train \(n01, n02, n03, ...\), got images$"
    )
    with pytest.raises(ConfigError, match=want):
        datasets.load_splits(f"folder:{tmp_path}", used={"train", "val"})
    only = datasets.load_splits(f"folder:{tmp_path}", used={"train"})
    assert only["train"].classes == 4
    # Its training images lie a folder deeper.
    (tmp_path / "train/n01/images").mkdir()
    (tmp_path / "train/n01/1.png").rename(tmp_path / "train/n01/images/1.png")
    with pytest.raises(
        ConfigError, match="got only images; move those of n01/images up"
    ):
        datasets.load_splits(f"folder:{tmp_path}", used={"train"})["train"]


def test_a_gray_split_of_a_color_folder_is_warned_of(tmp_path):
    for split, gray in (("a_train", 1), ("b_test", 2)):
        (tmp_path / split / "x").mkdir(parents=True)
        for i in range(3):
            shape = (4, 5) if i >= 3 - gray else (4, 5, 3)
            image = Image.fromarray(np.full(shape, 90, np.uint8))
            image.save(tmp_path / split / f"x/{i}.png")
    splits = folder.load(str(tmp_path))
    assert splits["a_train"].read(2).shape == (4, 5, 3)
    text = "b_test: 2 of 3 images have 1 channel and become RGB, as .*a_train/x/0.png"
    with pytest.warns(UserWarning, match=text):
        _ = splits["b_test"]
    assert folder.load(str(tmp_path), 3)["b_test"].read(2).shape == (4, 5, 3)
