"""The words of a picture of views."""

import numpy as np

from kdjax.core.types import View
from kdjax.jobs.visualizing import _captions, _class_name

NAMES = ("cat", "dog", "a very long name of a class")


def view(labels, **mixed):
    empty = np.zeros((len(labels), 1, 1, 1))
    return View(empty, empty, np.array(labels), **mixed)


def test_columns_have_the_names_of_their_classes():
    assert _captions(view([1, 0, -1]), NAMES) == ["dog", "cat", "no label"]
    assert _captions(view([7]), ()) == ["class 7"]
    assert _class_name(2, NAMES) == "a very long nam…"


def test_a_blend_has_both_classes_and_their_shares():
    mixed = view([1, 0], partner_labels=np.array([0, 1]), mix_weight=np.float32(0.38))
    assert _captions(mixed, NAMES) == ["38 % dog\n62 % cat", "38 % cat\n62 % dog"]
