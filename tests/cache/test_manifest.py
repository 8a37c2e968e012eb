"""The manifest of a target cache: each field that its targets depend on, alone."""

import dataclasses
import json

import numpy as np
import pytest

from kdjax import config
from kdjax.cache import manifest
from kdjax.config import Ensemble, FromRun, Scalar, Term, Views
from kdjax.core.types import BoundModel
from kdjax.data import datasets, order
from kdjax.models import from_function
from kdjax.presets import digits, digits_teacher

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(6) % 3
TRAIN = datasets.from_arrays(IMAGES, LABELS)
WEIGHTS = {"params": np.ones((2, 3), np.float32)}
TEACHER = BoundModel(from_function(lambda w, x: x, params=0), WEIGHTS, None, 8)
RUN = digits(
    terms={"soft": Term(temperature=Scalar(2.0))},
    teacher=Ensemble((digits_teacher(), FromRun("runs/second"))),
)


def with_fields(fields):
    """The run with some of its fields, by dotted name, at other values."""
    values = config.to_dict(RUN)
    for path, value in fields.items():
        *parents, last = path.split(".")
        at = values
        for name in parents:
            at = at[int(name) if isinstance(at, list) else name]
        at[last] = value
    return config.from_dict(values)


def fingerprint(fields=None, train=TRAIN, **teacher):
    run = with_fields(fields or {})
    found = manifest.make_manifest(run, train, TEACHER._replace(**teacher))
    return json.dumps(found, sort_keys=True)


FIXED, CROPS = {"views.mode": "fixed"}, {"teacher.cache.crops": 3}
PROBABILITIES = {"teacher.mean": "probabilities"}
# A field, another value for it, and what else the run says for it to matter.
FIELDS = [
    ("seed", 1, {}),
    ("seeds", 2, {}),
    ("batch", 32, {}),
    ("seed", 1, {**FIXED, **CROPS}),
    ("data.crop", "host", {}),
    ("teacher.members.0.precision", "bfloat16", {}),
    ("teacher.members.1.precision", "bfloat16", {}),
    ("teacher.mean", "probabilities", {}),
    ("teacher.mean_at", 3.0, PROBABILITIES),
    ("teacher.weights", [2.0, 1.0], {}),
    ("teacher.weights", [1.0, 2.0], {}),
    ("teacher.temperatures", [2.0, 1.0], {}),
    ("teacher.temperatures", [1.0, 2.0], {}),
    ("teacher.cache.top_k", 2, {}),
    ("teacher.cache.top_k", 3, {"teacher.cache.top_k": 2}),
    ("teacher.cache.taps", ["stage1"], {}),
    ("teacher.cache.crops", 3, FIXED),
    ("teacher.cache.crops", 4, {**FIXED, **CROPS}),
    ("terms.soft.temperature.value", 4.0, PROBABILITIES),
    ("terms.soft.temperature.value", 4.0, {"teacher.cache.top_k": 2}),
]
VIEWS = [
    ("mode", "consistent", {}),
    ("mode", "independent", {"views.mode": "consistent"}),
    ("mode", "fixed", {"views.mode": "independent"}),
    ("area", [0.5, 1.0], {}),
    ("area", [0.05, 0.5], {}),
    ("area", [0.5, 1.0], {**FIXED, **CROPS}),
    ("aspect", [0.5, 1.5], {}),
    ("flip", True, {}),
    ("flip", True, {**FIXED, **CROPS}),
    ("crop", "random", {}),
    ("crop_fraction", 0.5, {"views.crop": "random"}),
    ("crop_fraction", 0.5, {**FIXED, "views.fixed_view": "center"}),
    ("fixed_view", "center", FIXED),
    ("method", "cubic", {}),
    ("method", "cubic", FIXED),
    ("antialias", True, {}),
    ("antialias", True, FIXED),
    ("mix", "cutmix", {}),
    ("jitter", [0.0, 0.0, 0.0, 0.1], {}),
    ("randaugment", [1, 0], {}),
    ("randaugment", [2, 5], {"views.randaugment": [2, 4]}),
]
FIELDS += [(f"views.{name}", value, also) for name, value, also in VIEWS]


@pytest.mark.parametrize("field, value, also", FIELDS, ids=[x[0] for x in FIELDS])
def test_each_field_alone_changes_the_fingerprint(field, value, also):
    assert fingerprint(also) == fingerprint(also)
    assert fingerprint({**also, field: value}) != fingerprint(also)


def test_no_field_of_the_views_is_forgotten():
    """All but the view of evaluation, which no target is computed for."""
    names = {field.name for field in dataclasses.fields(Views)}
    assert {name for name, _, _ in VIEWS} == names - {"evaluation_crop"}


def changed(x, index):
    x = x.copy()
    x[index] += 1
    return x


@pytest.mark.parametrize(
    "train",
    [
        datasets.from_arrays(changed(IMAGES, (5, 3, 3, 2)), LABELS),
        datasets.from_arrays(IMAGES, changed(LABELS, 0)),
        datasets.from_arrays(IMAGES[:5], LABELS[:5]),
        dataclasses.replace(TRAIN, ids=changed(TRAIN.ids, 5)),
        dataclasses.replace(TRAIN, shape=(8, 8, 3), resizes=True),
    ],
    ids=["pixel", "label", "count", "ids", "shape"],
)
@pytest.mark.parametrize("also", [{}, FIXED], ids=["replayed", "fixed"])
def test_other_images_change_the_fingerprint(train, also):
    assert fingerprint(also, train) != fingerprint(also)


@pytest.mark.parametrize(
    "change",
    [
        {"variables": {"params": changed(WEIGHTS["params"], (1, 2))}},
        {"variables": {"params": WEIGHTS["params"].astype(np.float16)}},
        {"resolution": 12},
        {"resolution": (8, 12)},
        {"normalization": ("unit",)},
        {"code": ("another function",)},
    ],
    ids=lambda change: " ".join(change),
)
@pytest.mark.parametrize("also", [{}, FIXED], ids=["replayed", "fixed"])
def test_another_teacher_changes_the_fingerprint(change, also):
    assert fingerprint(also, **change) != fingerprint(also)


def test_a_fixed_cache_is_of_the_seeds_if_each_has_a_teacher():
    one, two = FIXED, {**FIXED, "seeds": 2}
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one, axis=0) != fingerprint(two, axis=0)


@pytest.mark.parametrize(
    "module, name", [(order, "VERSION"), (manifest, "VIEWS_VERSION")]
)
def test_the_versions_of_order_and_views_change_the_fingerprint(
    monkeypatch, module, name
):
    before = fingerprint()
    monkeypatch.setattr(module, name, "another")
    assert fingerprint() != before
