"""Configs of earlier releases read as what they were."""

import copy

import pytest

from kdjax.config import (
    Cache,
    ConfigError,
    Ensemble,
    FromRun,
    FromWeights,
    ModelConfig,
    MovingAverage,
    Optim,
    TrainFirst,
    Views,
    from_dict,
    to_dict,
)
from kdjax.config.upgrade import upgrade
from kdjax.presets import digits

SMALL = {"name": "resnet", "depth": 8, "width": 8, "norm": "group", "resolution": 8}
MODEL = {**SMALL, "weights": "", "adapt": [], "pixels": "half"}
PUBLISHED = {**MODEL, "name": "resnet56", "weights": "x.npz", "pixels": "imagenet"}
VIEWS = {"mode": "fixed", "share": 0.5, "still": "central", "central": 1.25}
# All fields that the one class of teachers had.
TEACHER = {
    "kind": "model",
    "decay": 0.999,
    "run": "",
    "step": 0,
    "model": MODEL,
    "precision": "bfloat16",
    "train": "train[:9]",
    "steps": 70,
    "optim": {"lr": 0.5},
    "views": VIEWS,
    "weight": 1.0,
    "temperature": 1.0,
    "also": [],
    "mean": "logits",
    "mean_at": 0.0,
    "cache": {"path": "store", "top_k": 3, "tail": "renormalise"},
}
OTHER = {"run": "", "step": 0, "model": PUBLISHED, "weight": 1.0, "temperature": 1.0}
CACHE = Cache("store", top_k=3, tail="renormalize")
NETWORK = ModelConfig("resnet", 8, 8, resolution=8)
OPEN = ModelConfig(
    "resnet56", 8, 8, "group", 8, weights="x.npz", normalization="imagenet"
)
SEEN = Views(mode="fixed", crop_fraction=0.5, fixed_view="center", evaluation_crop=1.25)
TRAINING = TrainFirst(NETWORK, "train[:9]", 70, Optim(lr=0.5), SEEN, "bfloat16")
CACHED = TrainFirst(NETWORK, "train[:9]", 70, Optim(lr=0.5), SEEN, "bfloat16", CACHE)

TEACHERS = {
    "none": (None, None),
    "train": ({}, CACHED),
    "run": ({"run": "runs/x", "step": 7}, FromRun("runs/x", 7, "bfloat16", CACHE)),
    "weights": ({"model": PUBLISHED}, FromWeights(OPEN, "bfloat16", CACHE)),
    "average": ({"kind": "average", "decay": 0.5}, MovingAverage(0.5)),
    "equal members": (
        {"run": "runs/x", "also": [OTHER]},
        Ensemble(
            (FromRun("runs/x", 0, "bfloat16"), FromWeights(OPEN, "bfloat16")),
            cache=CACHE,
        ),
    ),
    "members": (
        {
            "weight": 2.0,
            "also": [{"run": "runs/y", "step": 4, "temperature": 3.0}],
            "mean": "probabilities",
            "mean_at": 5.0,
        },
        Ensemble(
            (TRAINING, FromRun("runs/y", 4, "bfloat16")),
            (2.0, 1.0),
            (1.0, 3.0),
            "probabilities",
            5.0,
            CACHE,
        ),
    ),
}


def former(**changes):
    """The fields of a run as an earlier release wrote them."""
    run = to_dict(digits())
    return {**run, "teacher": copy.deepcopy(TEACHER), **changes}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_becomes_one_of_its_kind(name):
    changes, expected = TEACHERS[name]
    teacher = None if changes is None else {**TEACHER, **changes}
    run = from_dict(former(teacher=teacher))
    assert run.teacher == expected


def test_a_teacher_of_few_fields_has_the_defaults_of_its_time():
    run = from_dict(former(teacher={"steps": 70}))
    assert run.teacher == TrainFirst(NETWORK, steps=70)


@pytest.mark.parametrize(
    "table, old, new",
    [
        ("model", {"pixels": "half"}, {"normalization": "symmetric"}),
        ("model", {"pixels": "unit"}, {"normalization": "unit"}),
        ("data", {"feed": "streamed"}, {"pipeline": "host"}),
        ("data", {"feed": "resident"}, {"pipeline": "device"}),
        ("data", {"feed": "auto"}, {"pipeline": "auto"}),
        ("data", {"on_corrupt": "skip"}, {"on_error": "skip"}),
        ("views", {"still": "whole"}, {"fixed_view": "whole"}),
        ("views", {"still": "central"}, {"fixed_view": "center"}),
        ("views", {"share": 0.5}, {"crop_fraction": 0.5}),
        ("views", {"central": 1.25}, {"evaluation_crop": 1.25}),
    ],
)
def test_renamed_fields(table, old, new):
    values = to_dict(digits())
    kept = {k: v for k, v in values[table].items() if k not in new}
    run = from_dict({**values, table: {**kept, **old}})
    assert run == from_dict({**values, table: {**kept, **new}})


def test_a_projector_was_a_connector():
    values = to_dict(digits())
    term = {"loss": "hint_l2", "student": "stage1", "teacher": "stage1"}
    values["terms"] = {"hint": {**term, "connector": True}}
    assert from_dict(values).terms["hint"].projector


def test_todays_configs_stay_as_they_are():
    for changes, teacher in TEACHERS.values():
        del changes
        values = to_dict(digits(teacher=teacher))
        assert upgrade(values) == values


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"modle": MODEL}, "teacher.modle"),
        ({"also": [{**OTHER, "modle": MODEL}]}, "teacher.members.1.modle"),
        ({"also": 3}, "teacher.also"),
        ({"also": [3]}, "teacher.also"),
        ({"kind": "tutor"}, "teacher.kind"),
    ],
)
def test_what_no_release_had_is_refused_by_its_name(changes, field):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        from_dict(former(teacher={**TEACHER, **changes}))
