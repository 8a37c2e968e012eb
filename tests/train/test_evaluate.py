"""Evaluation: masked last batch, resolutions apart, one number a seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.augment import views
from kdjax.config import Compute
from kdjax.train import evaluate, sharding

CLASSES = 7


def predict(variables, images):
    seen = views.whole_view(images["image"], variables_size(variables))
    return seen.reshape(len(seen), -1) @ variables["w"]


def variables_size(variables):
    return int(np.sqrt(variables["w"].shape[-2]))


def make(seed, size, seeds=None):
    shape = (size * size, CLASSES)
    shape = shape if seeds is None else (seeds, *shape)
    return {"w": jax.random.normal(jax.random.key(seed), shape)}


def chunks(split, size=16):
    images, labels = split
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield {"image": images[part]}, labels[part]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def reference(student, teacher, images, labels):
    """Independent float64 metrics over the whole split at once."""

    def logits(w):
        size = int(np.sqrt(w.shape[0]))
        seen = np.asarray(views.whole_view(images, size), np.float64)
        return seen.reshape(len(seen), -1) @ np.asarray(w, np.float64)

    s, t = logits(student), logits(teacher)
    ls, lt = log_softmax(s), log_softmax(t)
    rank = (s > np.take_along_axis(s, labels[:, None], 1)).sum(1)
    confidence, hits = np.exp(ls).max(1), s.argmax(1) == labels
    place = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
    gaps = [abs((hits[place == b] - confidence[place == b]).sum()) for b in range(15)]
    return {
        "accuracy": hits.mean(),
        "nll": -np.take_along_axis(ls, labels[:, None], 1).mean(),
        "top_5": (rank < 5).mean(),
        "agreement": (s.argmax(1) == t.argmax(1)).mean(),
        "kl": (np.exp(lt) * (lt - ls)).sum(1).mean(),
        "calibration_error": sum(gaps) / len(labels),
    }


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (53, 8, 8, 1), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, 53).astype(np.int32)


@pytest.mark.parametrize("devices, batch", [(1, 16), (8, 16), (1, 53), (8, 500)])
@pytest.mark.parametrize("teacher_seeds", [None, 2])
def test_metrics_of_a_ragged_split(split, devices, batch, teacher_seeds):
    """Student at 8 pixels, teacher at 6, two seeds, whatever batch and devices."""
    student, teacher = make(0, 8, seeds=2), make(1, 6, seeds=teacher_seeds)
    measure = evaluate.make_evaluate(
        predict,
        predict,
        teacher_axis=None if teacher_seeds is None else 0,
        seeds=2,
        mesh=sharding.make_mesh(Compute(data=devices), devices),
        batch=batch,
    )
    found = measure(student, teacher, chunks(split, batch))
    for seed in range(2):
        own = teacher["w"] if teacher_seeds is None else teacher["w"][seed]
        want = reference(student["w"][seed], own, *split)
        assert set(found) == set(want)
        for name, value in want.items():
            np.testing.assert_allclose(found[name][seed], value, rtol=1e-5, atol=1e-6)


def test_without_a_teacher_nothing_is_said_about_one(split):
    mesh = sharding.make_mesh(Compute(data=1), 1)
    measure = evaluate.make_evaluate(
        predict, None, teacher_axis=None, seeds=1, mesh=mesh
    )
    found = measure(make(0, 8, seeds=1), None, chunks(split))
    assert set(found) == {"accuracy", "nll", "top_5", "calibration_error"}


def test_a_model_agrees_with_itself(split):
    mesh = sharding.make_mesh(Compute(data=1), 1)
    both = make(0, 8, seeds=1)
    measure = evaluate.make_evaluate(
        predict, predict, teacher_axis=0, seeds=1, mesh=mesh
    )
    found = measure(both, jax.tree.map(jnp.copy, both), chunks(split))
    assert found["agreement"] == [1.0]
    np.testing.assert_allclose(found["kl"], [0.0], atol=1e-6)
