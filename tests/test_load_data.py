"""Warnings of labels that are no class numbers, and of images in two splits."""

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest

from kdjax import setup
from kdjax.config import ConfigError, Data, Run
from kdjax.data.datasets import from_arrays
from kdjax.presets import digits

SPLITS = ("train", "validation", "test")


def with_labels(labels) -> tuple[Run, dict[str, Any]]:
    labels = np.asarray(labels)
    split = np.zeros((len(labels), 8, 8, 1), np.uint8), labels
    run = dataclasses.replace(digits(), data=Data("", "train", "validation", "test"))
    return run, {name: split for name in SPLITS}


def warnings_of(check, run, splits, *fields):
    data = {name: setup.load_source(run, name, splits) for name in SPLITS}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(run, data, *fields)
    return [str(x.message) for x in caught]


@pytest.mark.parametrize(
    ("labels", "empty"),
    [
        (np.arange(10) * 100, 891),
        ([0, 1, 2, 255], 252),
        ([0, 1, 4], 2),
        ([0, 2, 4, 5, 6], 0),  # two of six
        (np.arange(10), 0),
    ],
)
def test_classes_without_an_image_in_any_split_are_counted(labels, empty):
    run, splits = with_labels(labels)
    highest = max(labels)
    want = (
        f"data.train: {empty} of the classes below the highest label, {highest}, have "
        f"no image (number the classes from 0, or set data.classes to {highest + 1})"
    )
    found = warnings_of(setup.warn_of_gaps, run, splits)
    assert found == ([want] if empty else [])
    data = dataclasses.replace(run.data, classes=1000)
    stated = dataclasses.replace(run, data=data)
    assert warnings_of(setup.warn_of_gaps, stated, splits) == []


def test_labels_that_are_no_class_numbers_are_refused():
    run, splits = with_labels([0, 2**20 - 1])
    assert setup.load_source(run, "train", splits).classes == 2**20
    run, splits = with_labels([10**9, 10**9 + 9])
    want = "data.train: expected labels below 1,048,576, got '?1000000009"
    for outline in (True, False):
        with pytest.raises(ConfigError, match=want):
            setup.load_source(run, "train", splits, outline=outline)


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (
            ("train", "validation", "train"),
            ["data.train (train) and data.test (train) share 12 images"],
        ),
        (
            ("train[:8]", "train[4:12]", "test"),
            ["data.train (train[:8]) and data.validation (train[4:12]) share 4 images"],
        ),
        (("train[:50%]", "train[50%:]", "test"), []),
        (("train", "validation", "test"), []),
    ],
)
def test_images_of_two_splits_are_counted(texts, want):
    run, splits = with_labels(np.arange(12) % 3)
    run = dataclasses.replace(run, data=Data("", *texts))
    found = warnings_of(setup.warn_of_shared_images, run, splits)
    assert found == want


def test_another_set_and_the_split_of_a_teacher_share_images_by_their_own_names():
    run, splits = with_labels(np.arange(12) % 3)
    run = dataclasses.replace(run, data=Data("", "train", "train[8:]", "test"))
    teacher = {"train": "teacher.train"}
    assert warnings_of(setup.warn_of_shared_images, run, splits, teacher) == [
        "teacher.train (train) and data.validation (train[8:]) share 4 images"
    ]
    data = {name: setup.load_source(run, name, splits) for name in SPLITS}
    other = dataclasses.replace(run.data, train_name="digits")
    setup.warn_of_shared_images(dataclasses.replace(run, data=other), data)


def test_training_images_that_are_all_equal_are_a_warning():
    images = np.zeros((40, 8, 8, 1), np.uint8)
    labels = np.arange(40) % 10
    with pytest.warns(
        UserWarning, match="^data.train: 8 images, .* are equal"
    ) as found:
        setup.warn_of_equal_images(from_arrays(images, labels, "data"))
    assert len(found) == 1
    images[:, 0, 0, 0] = np.arange(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        setup.warn_of_equal_images(from_arrays(images, labels, "data"))
        setup.warn_of_equal_images(from_arrays(images[:1], labels[:1], "data"))
