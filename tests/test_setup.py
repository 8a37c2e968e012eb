"""The examples of a run, by the fields of its config."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from PIL import Image

from kdjax import setup
from kdjax.cache.manifest import make_manifest
from kdjax.config import (
    Compute,
    ConfigError,
    Data,
    Ensemble,
    FromRun,
    Scalar,
    Term,
    labels_only,
)
from kdjax.core.types import BoundModel
from kdjax.data import datasets
from kdjax.jobs.distilling import baseline_run
from kdjax.models import from_function
from kdjax.presets import digits, digits_teacher
from kdjax.setup import batches, dry_run

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
    return setup.load_source(dataclasses.replace(digits(), data=data), split)


def test_a_folder_at_one_size_without_its_damaged_image(photos):
    with pytest.warns(UserWarning, match="data.train: left out 1 of 4 images: .*0.png"):
        train = load("train", name=photos, store=8, on_error="skip")
    assert train.images.shape == (3, 8, 8, 3) and train.ids.tolist() == [1, 2, 3]
    assert train.labels.tolist() == [0, 1, 1] and train.sizes[0].tolist() == [12, 9]
    with pytest.raises(ValueError, match="train/a/0.png: cannot be decoded"):
        load("train", name=photos, store=8)
    with pytest.raises(ValueError, match="expected shape .* as the images before"):
        load("test", name=photos)


def test_other_images_to_teach_on_have_no_labels_but_the_classes_of_the_set(photos):
    fields = dict(name="digits", train_name=photos, store=8, channels=1)
    with pytest.warns(UserWarning, match="left out 1 of 4"):
        other = load("train", on_error="skip", **fields)
    assert other.images.shape == (3, 8, 8, 1) and other.classes == 10
    assert other.labels.tolist() == [-1, -1, -1]
    test = load("test", **fields)
    assert test.shape == other.shape and len(test) == 597 and test.labels.min() == 0
    run = digits(seeds=1, batch=2)
    with pytest.raises(ConfigError, match="data.train: expected a label .*3 of 3"):
        setup.make_parts(labels_only(run), train=other)


def test_other_images_to_teach_on_may_be_of_any_classes(tmp_path):
    for name in ("A/train/cat", "A/train/dog", "C/train/bird", "C/train/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "1.png")
    joined = f"folder:{tmp_path}/A+folder:{tmp_path}/C"
    other = load("train", name="digits", train_name=joined)
    assert other.labels.tolist() == [-1] * 4 and other.classes == 10
    with pytest.raises(ConfigError, match=r"data.name .train.*'dog'\] and \['bi"):
        load("train", name=joined)


def test_images_without_labels_have_the_classes_of_the_other_splits():
    images = np.zeros((12, 8, 8, 1), np.uint8)
    splits = {
        "train": (images, None),
        "validation": (images, np.arange(12) % 3),
        "test": (images, np.arange(12) % 5),
    }
    data = Data("digits", train="train[2:]", validation="validation", test="test")
    run = dataclasses.replace(digits(), data=data)
    found = setup.load_source(run, "train", splits)
    assert found.classes == 5 and found.labels.tolist() == [-1] * 10
    assert setup.load_source(run, "validation", splits).classes == 3
    splits["train"] = (images, np.arange(12) % 4)
    assert setup.load_source(run, "train", splits).classes == 4
    other = dataclasses.replace(
        run, data=dataclasses.replace(data, train_name="digits")
    )
    found = setup.load_source(other, "train", splits)
    assert found.classes == 5 and len(found) == 998 and found.labels.max() == -1


def test_a_label_beyond_the_classes_is_named():
    images, labels = np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3
    stray = np.where(np.arange(12) == 7, 255, labels)
    splits = {"train": (images, labels), "validation": (images, stray)}

    def load(split, **data):
        data = Data(train="train", validation="validation", **data)
        return setup.load_source(
            dataclasses.replace(digits(), data=data), split, splits
        )

    assert load("train", classes=5).classes == 5
    want = r"data.validation: expected labels below 5 classes .*, got '255 .* 7\)'$"
    with pytest.raises(ConfigError, match=want):
        load("validation", classes=5)
    splits["train"] = splits["validation"]
    assert load("train").classes == 256
    named = dataclasses.replace(
        datasets.from_arrays(*splits["train"]), names=("a", "b")
    )
    splits["train"] = named
    with pytest.raises(ConfigError, match="data.train: expected 5 .*the names of 2"):
        load("train", classes=5)


def test_a_baseline_is_measured_against_the_mean_that_the_student_learns_from():
    members = digits_teacher(), FromRun("runs/other")
    teacher = Ensemble(members, mean="probabilities")
    soft = {"soft": Term(temperature=Scalar(3.0))}
    run = dataclasses.replace(digits(), teacher=teacher, terms=soft)
    for change, want in (
        ({}, 3.0),
        ({"mean_at": 2.0}, 2.0),
        # Terms of labels alone leave the temperature at 1.
        ({"mean": "logits"}, 1.0),
    ):
        changed = dataclasses.replace(teacher, **change)
        run = dataclasses.replace(run, teacher=changed)
        baseline = baseline_run(run, "labels")
        assert baseline.mean_at == want and set(baseline.terms) == {"hard"}


def test_the_baseline_with_mixup_is_the_one_that_mixes():
    for name, mode in (("labels", "consistent"), ("labels_mixup", "function_matching")):
        baseline = baseline_run(digits(), name)
        assert baseline.views == dataclasses.replace(digits().views, mode=mode)


def test_crops_of_stored_images_know_their_own_sizes(photos):
    """A whole update is traced with sizes, on the labels of the folder."""
    train = load("validation", name=photos, store=8)
    run = digits(seeds=1, batch=2, teacher=None, compute=ONE)
    run = labels_only(run)
    setup.check_fit(run, train=train, student=None, teacher=None)
    parts = setup.make_parts(run, train=train)
    given = setup.place_constants(parts)
    rows = {"index": np.array([0, 1]), "epoch": np.zeros(2, np.int32)}
    batch = {"seed": 0, "step": np.int32(0), "rows": rows}
    seen = jax.jit(lambda: parts.view(np.int32(0), batch, given))()
    squares = {**given, "data": {**given["data"], "size": np.full((4, 2), 8)}}
    other = jax.jit(lambda: parts.view(np.int32(0), batch, squares))()
    assert seen.student.shape == (2, 8, 8, 3)
    assert np.abs(np.asarray(seen.student) - np.asarray(other.student)).max() > 0.01


NOWHERE = {
    "data.name: expected folder:PATH, .*'dreams'": {"name": "dreams"},
    "data.name .*/nowhere.: expected a folder": {"name": "folder:/nowhere"},
    "data.name: expected a module that exists, got 'nowhere'": {"name": "nowhere:data"},
    "data.name: expected a dict of splits, .* got 'dict_keys'": {
        "name": "its_keys:keys"
    },
    "data.train_name: expected folder:PATH, ": {"train_name": "dreams"},
    "data.train_name .*/nowhere.: expected a folder": {"train_name": "folder:/nowhere"},
    "data.train_name: expected a module that exists": {"train_name": "nowhere:data"},
    "data.train_name: expected cifar10 prepared": {"train_name": "cifar10"},
    "data.train: expected one of the splits .*'more'": {"train": "more"},
    "data.data_dir: expected a folder of TFDS": {
        "name": "cifar10",
        "data_dir": "/nowhere",
    },
    "data.data_dir: expected a folder on this machine .*gs://b": {
        "name": "cifar10",
        "data_dir": "gs://b",
    },
}


@pytest.mark.parametrize("message", NOWHERE)
def test_the_field_that_is_wrong_is_named(message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "its_keys.py").write_text("def keys(): return {}.keys()\n")
    data = dataclasses.replace(Data("digits", train="train"), **NOWHERE[message])
    with pytest.raises(ConfigError, match=message):
        setup.load_source(dataclasses.replace(digits(), data=data), "train")


def test_every_split_s_own_field_is_named():
    splits = {"train": (np.zeros((4, 8, 8, 1), np.uint8), np.arange(4))}
    for split in ("train", "validation", "test"):
        run = dataclasses.replace(digits(), data=Data(**{split: "train[:9]"}))
        with pytest.raises(ConfigError, match=f"data.{split}: expected bounds"):
            setup.load_source(run, split, splits)
    run = dataclasses.replace(digits(), data=Data("digits", train="train[:9]"))
    with pytest.raises(ConfigError, match="teacher.train: expected bounds"):
        setup.load_source(run, "train", splits, "teacher.train")
    with pytest.raises(ConfigError, match="splits: expected a dict .* got 'list'"):
        setup.load_source(run, "train", [splits["train"]])


@pytest.mark.parametrize("given", [True, False])
def test_channels_and_store_are_of_any_kind_of_set(given):
    """Of arrays handed over, and of sets that are arrays."""
    splits = datasets.digits() if given else None
    data = Data("digits", train="train[:5]", channels=3, store=6)
    run = dataclasses.replace(digits(), data=data)
    held = setup.load_source(run, "train", splits)
    assert held.images.shape == (5, 6, 6, 3) and held.sizes.tolist() == [[8, 8]] * 5
    np.testing.assert_array_equal(held.images[..., 0], held.images[..., 2])


@pytest.mark.parametrize("name, scale", [("symmetric", "half"), ("unit", "unit")])
def test_a_manifest_has_the_normalization_of_the_teacher(name, scale):
    """By the name that manifests have had from the first."""
    run = digits()
    train = setup.load_source(run, "train")
    model = dataclasses.replace(run.model, normalization=name)
    own = dataclasses.replace(run, model=model)
    teacher = setup.trace_model(own, 10, 1, None)
    assert make_manifest(run, train, teacher)["teacher"]["pixels"] == [scale]
    assert teacher.normalization == (name,)


@pytest.mark.parametrize(
    "mean, mean_at, at",
    [("logits", 0.0, None), ("probabilities", 0.0, 3.0), ("probabilities", 2.0, 2.0)],
)
def test_several_teachers_have_the_weights_and_temperatures_of_the_config(
    mean, mean_at, at
):
    """Two linear members; probabilities are averaged at the loss's temperature 3, or
    at `mean_at`."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 5, 4)).astype(np.float32)
    params = rng.normal(size=(2, 4, 3)).astype(np.float32)
    model = from_function(lambda w, x: x @ w, params=0)
    first, second = (BoundModel(model, {"params": w}, None, 8) for w in params)
    run = digits(
        terms={"soft": Term(temperature=Scalar(3.0))},
        teacher=Ensemble(
            (digits_teacher(), FromRun("x")),
            weights=(3.0, 1.0),
            temperatures=(2.0, 0.5),
            mean=mean,
            mean_at=mean_at,
        ),
    )
    both = setup.ensemble_teachers([first, second], run)
    found = both.model.apply(both.variables, tuple(images), train=False, rngs=None)
    found = np.float64(found[0].logits)
    a, b = (np.float64(x) @ np.float64(w) for x, w in zip(images, params, strict=True))
    a, b = a / 2.0, b / 0.5
    if at is None:
        want = 0.75 * a + 0.25 * b
    else:
        found, a, b = (np.exp(x / at) for x in (found, a, b))
        found, a, b = (x / x.sum(-1, keepdims=True) for x in (found, a, b))
        want = 0.75 * a + 0.25 * b
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_numbers_of_a_schedule_may_be_plain():
    numbers = (
        batches._as_array(0.5),
        batches._as_array(3),
        batches._as_array(np.float32(2)),
    )
    assert [x.dtype.name for x in numbers] == ["float32", "int32", "float32"]
    assert [np.shape(x) for x in numbers] == [(), (), ()]


def sorted_set():
    images = np.zeros((360, 8, 8, 1), np.uint8)
    return {"train": (images, np.arange(360) // 120)}


SHARES = {"train": "train[:200]", "validation": "train[200:300]", "test": "train[300:]"}


def loaded(splits, **changes):
    run = dataclasses.replace(digits(), data=Data(**{**SHARES, **changes}))
    data = {name: setup.load_source(run, name, splits) for name in SHARES}
    setup.warn_of_missing_classes(run, data)
    return data


def test_a_split_that_lacks_a_class_is_named():
    """A sorted set in shares: class 2 is never trained, and alone in validation."""
    with pytest.warns(UserWarning) as caught:
        data = loaded(sorted_set(), classes=3)
    assert {*data["train"].labels} == {0, 1}
    advice = "(for a set sorted by class set data.shuffle_seed)"
    assert [str(x.message) for x in caught] == [
        f"data.train: 1 of 3 classes without an image: 2 {advice}",
        f"data.validation: 1 of 3 classes without an image: 0 {advice}",
        f"data.test: 2 of 3 classes without an image: 0, 1 {advice}",
    ]
    # Silent, and every class everywhere.
    data = loaded(sorted_set(), classes=3, shuffle_seed=0)
    assert all({*source.labels} == {0, 1, 2} for source in data.values())


def test_the_split_of_a_teacher_is_named_by_its_own_field():
    data = {name: datasets.from_arrays(*sorted_set()["train"]) for name in SHARES}
    data["train"] = datasets.take_split(sorted_set(), "train[:50]", "teacher.train")
    run = dataclasses.replace(digits(), data=Data(**SHARES))
    with pytest.warns(UserWarning) as caught:
        setup.warn_of_missing_classes(run, data, {"train": "teacher.train"})
    (text,) = (str(x.message) for x in caught)
    assert text.startswith("teacher.train: 2 of 3 classes without an image: 1, 2 (")


def test_a_class_that_no_split_has_is_meant():
    loaded(
        {"train": (np.zeros((360, 8, 8, 1), np.uint8), np.arange(360) % 3)}, classes=9
    )


def test_a_class_of_one_split_alone_is_named(tmp_path):
    splits = {"train": ["ant", "bee", "cow"], "val": ["ant", "bee", "dog"]}
    for split, names in splits.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.zeros((4, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "1.png")
    with pytest.warns(UserWarning) as caught:
        loaded(
            None,
            name=f"folder:{tmp_path}",
            **{"train": "train", "validation": "val", "test": "val"},
        )
    assert [str(x.message) for x in caught] == [
        "data.train: 1 of 4 classes without an image: dog",
        "data.validation: 1 of 4 classes without an image: cow",
        "data.test: 1 of 4 classes without an image: cow",
    ]


def test_one_class_is_refused(tmp_path):
    one = {"train": (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, int))}
    want = "data.train: expected images of at least 2 classes, got 1 "
    with pytest.raises(ConfigError, match=want + r"\(every label is 0\)"):
        loaded(one, train="train", validation="train", test="train")
    third = {"train": (one["train"][0], np.full(4, 2))}
    with pytest.raises(ConfigError, match=want + r"\(every label is 2\)"):
        loaded(third, train="train", validation="train", test="train")
    (tmp_path / "train/cat").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "train/cat/1.png")
    name = f"folder:{tmp_path}"
    with pytest.raises(ConfigError, match=want + r"\(cat\)"):
        loaded(None, name=name, train="train", validation="train", test="train")


def test_bare_weights_of_a_teacher_are_named():
    model = from_function(lambda params, x: x, init=lambda key, x: {"w": x[0]})
    teacher = BoundModel(model, np.zeros((64, 10)), None, 8)
    message = "^teacher: expected variables of its model, with entries, got .64, 10.$"
    with pytest.raises(ConfigError, match=message):
        dry_run._check_variables(teacher, 1)
    named = BoundModel(model, {"v": np.zeros(3)}, None, 8)
    message = "^teacher: expected .*'w'. of shape .8, 8, 1., got none$"
    with pytest.raises(ConfigError, match=message):
        dry_run._check_variables(named, 1)


def test_a_parameter_of_integers_is_named():
    weights = {"w": np.ones((4, 3), np.float32), "n": np.int32(2)}
    with pytest.raises(ConfigError) as error:
        dry_run._check_parameters(weights)
    expected = "model: expected parameters of floating dtype, n too, got 'int32'"
    assert str(error.value) == expected
    dry_run._check_parameters({**weights, "n": np.float32(2)})


@pytest.mark.parametrize("field", ["model", "teacher"])
def test_lost_rows_of_a_batch_are_named_by_their_network(field):
    whole = from_function(
        lambda w, x: x.reshape(len(x), -1) @ w, params=np.ones((4, 3))
    )
    half = from_function(
        lambda w, x: x[: len(x) // 2].reshape(len(x) // 2, -1) @ w,
        params=np.ones((4, 3)),
    )
    student, teacher = (half, whole) if field == "model" else (whole, half)
    train = types.SimpleNamespace(classes=3, shape=(2, 2, 1))
    own = types.SimpleNamespace(resolution=2)
    run = types.SimpleNamespace(model=own, strategy=None)
    bound = BoundModel(teacher, {"params": np.ones((4, 3))}, None, 2)
    expected = f"^{field}: expected logits .* of a batch of 2 images, got .1, 3.$"
    with pytest.raises(ConfigError, match=expected):
        dry_run._check_logits(run, train, student, bound)
