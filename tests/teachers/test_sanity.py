"""Checks of a teacher from its outputs, and the lines that a run prints of them."""

import io
import types

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import kdjax
from kdjax.config import ConfigError
from kdjax.core.types import BoundModel
from kdjax.data.datasets import from_arrays
from kdjax.jobs.measuring import check_teacher
from kdjax.setup.load_teachers import take_logarithm
from kdjax.teachers.sanity import (
    are_probabilities,
    find_permutation,
    spread_sample,
)
from kdjax.train import sharding


def test_the_sample_is_spread_evenly_and_meets_every_class():
    chosen = spread_sample(5_120, 512)
    assert len(np.unique(chosen)) == 512
    np.testing.assert_array_equal(chosen // 10, np.arange(512))
    # Classes that take turns, and classes one after another.
    for labels in (np.arange(5_120) % 10, np.arange(5_120) // 512):
        counts = np.bincount(labels[chosen])
        assert len(counts) == 10 and counts.min() > 25
    np.testing.assert_array_equal(spread_sample(5_120, 512), chosen)
    np.testing.assert_array_equal(spread_sample(7, 512), np.arange(7))


def test_probabilities_are_told_from_logits():
    logits = np.random.default_rng(0).standard_normal((20, 5))
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert are_probabilities(softmax) and are_probabilities(np.eye(5))
    rows = np.random.default_rng(1).dirichlet(np.ones(1000), 20)
    assert are_probabilities(rows.astype(jnp.bfloat16))
    for other in (logits, np.log(softmax), softmax * 1.1, 1 / (1 + np.exp(-logits))):
        assert not are_probabilities(other)


def test_another_order_of_classes_is_found():
    rng = np.random.default_rng(0)
    labels, order = np.arange(200) % 10, rng.permutation(10)
    right = rng.random(200) < 0.8
    guesses = np.where(right, labels, rng.integers(0, 10, 200))
    found = find_permutation(np.eye(10)[order[guesses]], labels)
    np.testing.assert_array_equal(found.order, order)
    assert found.accuracy == (guesses == labels).mean()
    assert find_permutation(np.eye(10)[guesses], labels) is None
    chance = np.eye(10)[rng.integers(0, 10, 200)]
    assert find_permutation(chance, labels) is None
    assert find_permutation(np.eye(100)[labels], labels) is None  # Too few of each.


def lines_of(outputs, labels, names=()):
    """The lines that a run prints of a teacher with these outputs for its images."""
    table = jnp.asarray(outputs, jnp.float32)
    # The first pixel of an image is its number.
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    images[:] = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    index = kdjax.from_function(
        lambda params, x: table[jnp.round((x[:, 0, 0, 0] + 1) * 127.5).astype(int)], {}
    )
    source = from_arrays(images, np.asarray(labels, np.int32), "data")
    run = kdjax.presets.digits(seeds=1)
    text = io.StringIO()
    job = types.SimpleNamespace(
        run=run,
        data={"validation": source},
        mesh=sharding.make_mesh(kdjax.config.Compute(data=1), 1),
        console=Console(file=text, width=300),
    )
    check_teacher(BoundModel(index, {"params": {}}, None, 8), job)
    return text.getvalue().splitlines()


LABELS = np.arange(200) % 5


def test_an_ordinary_teacher_has_one_line():
    logits = 3 * np.eye(5)[LABELS] - 1
    assert lines_of(logits, LABELS) == ["teacher: 100.0% of all 200 validation images"]


def test_what_is_wrong_with_a_teacher_is_a_line():
    softmax = 0.6 * np.eye(5)[LABELS] + 0.08
    _, line = lines_of(softmax, LABELS)
    assert line.startswith("warning: the teacher's outputs are probabilities")
    _, line = lines_of(3 * np.eye(5)[(LABELS + 1) % 5], LABELS)
    assert "what label 0 is here is its class 1; reordered it would have 100" in line
    first, line = lines_of(np.eye(5)[0 * LABELS] * 3, LABELS)
    assert first.startswith("teacher: 20.0% of all 200")
    assert line.startswith("warning: near chance (1 in 5)")
    with pytest.raises(ConfigError, match="^teacher: expected logits that are numbers"):
        lines_of(np.full((200, 5), np.nan), LABELS)


def test_probabilities_become_logits_that_sum_to_one():
    rows = jnp.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    model = kdjax.from_function(lambda params, x: rows, {})
    bound = take_logarithm(BoundModel(model, {"params": {}}, None, 8))
    output, _ = bound.model.apply({"params": {}}, jnp.zeros((2, 8, 8, 1)))
    assert np.isfinite(output.logits).all()
    np.testing.assert_allclose(output.logits[0], np.log([0.5, 0.25, 0.25]), rtol=1e-6)
    # At T = 1 the loss is that of the probabilities themselves.
    student = jnp.array([[1.0, 0.0, -1.0], [0.5, 0.0, 0.0]])
    loss = kdjax.losses.softmax_kl(student, output.logits)
    p, q = np.asarray(rows, np.float64), np.exp(np.asarray(student, np.float64))
    q /= q.sum(-1, keepdims=True)
    expected = [np.sum(p[0] * np.log(p[0] / q[0])), -np.log(q[1, 0])]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
