"""The numbers of a data set, against NumPy on all its pixels."""

import numpy as np

from kdjax.data import datasets, source, statistics


def made(n=40, labels=None):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 4, 6, 3), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(n) % 3 if labels is None else labels)


def test_channels_classes_and_sizes():
    whole = made()
    found = statistics.describe(whole)
    pixels = whole.images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(found.std, pixels.std(axis=0))
    assert found.counts.tolist() == [14, 13, 13] and found.unlabeled == 0
    assert found.examples == found.decoded == 40
    assert found.sizes.tolist() == [[4, 6]] * 3
    assert statistics.format_statistics(found)[:3] == [
        "40 examples, 3 classes",
        "examples a class: 13 to 14",
        "size 4x6",
    ]


def test_sizes_are_those_before_resizing_and_pixels_those_after():
    images = [np.full((h, 6, 3), 51 * h, np.uint8) for h in (1, 2, 5)]
    three = source.dataclasses.replace(
        made(3), read=lambda place: images[place], images=None
    )
    found = statistics.describe(source.resize_all(three, 4))
    assert found.sizes.tolist() == [[1, 6], [2, 6], [5, 6]]
    np.testing.assert_allclose(found.mean, [(0.2 + 0.4 + 1.0) / 3] * 3)


def test_a_large_set_is_sampled_and_says_so():
    found = statistics.describe(made(), at_most=10)
    assert found.decoded == 10 and found.counts.sum() == 40
    assert (
        statistics.format_statistics(found)[-1] == "(pixels and sizes of 10 examples)"
    )
    bare = statistics.describe(source.drop_labels(made()))
    assert bare.unlabeled == 40 and len(bare.counts) == 0
    assert "40 without a label" in statistics.format_statistics(bare)
