"""Losses of generators: the fixture, NumPy formulas, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

KEEP = np.array([True, False, True, True, True])


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _random(*shape):
    return np.random.default_rng(1).normal(size=shape)


def _kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def test_diversity_fixture():
    """methods.md, 3.5; and 1 where the images coincide."""
    noise = np.array([[0.0, 0], [1, 1]])
    images = np.array([[0.0, 0], [2, 0]])
    values = losses.generator_diversity(images, noise)
    np.testing.assert_allclose(values, 0.6065306597, atol=1e-10)
    same = losses.generator_diversity(images[[1, 1]], noise)
    np.testing.assert_array_equal(same, 1)


def test_diversity_against_numpy_and_differences():
    images, noise = _random(5, 3, 2, 1), _random(5, 4)[::-1]

    def numpy(images, noise):
        flat = images.reshape(len(images), -1)
        far = np.abs(flat[:, None] - flat[None]).mean(-1)
        return np.exp(-(far * ((noise[:, None] - noise[None]) ** 2).mean(-1)).mean())

    values = losses.generator_diversity(images, noise)
    np.testing.assert_allclose(values, np.full(5, numpy(images, noise)), rtol=1e-9)
    spoilt = np.where(KEEP[:, None], noise, np.nan)
    values = losses.generator_diversity(images, spoilt, where=KEEP)
    expected = np.where(KEEP, numpy(images[KEEP], noise[KEEP]), 0)
    np.testing.assert_allclose(values, expected, rtol=1e-9)

    def loss(images, noise):
        return losses.generator_diversity(images, noise, where=KEEP).sum()

    check_grads(jax.jit(loss), (images, noise), 1, ("fwd", "rev"), 1e-6, 1e-6)
    equal = jax.grad(loss)(np.zeros_like(images), noise)
    np.testing.assert_array_equal(equal, 0)


def test_disagreement_against_numpy():
    student, teacher = _random(2, 5, 4)
    p, q = _softmax(teacher / 2), _softmax(student / 2)
    call = functools.partial(
        losses.generator_disagreement, student, teacher, temperature=2.0
    )
    np.testing.assert_allclose(call(), -_kl(p, q), rtol=1e-9)
    np.testing.assert_allclose(call(variant="sum"), -4 * _kl(p, q), rtol=1e-9)


def _competition(student, teacher, variant):
    p, q = _softmax(teacher / 3), _softmax(student / 3)
    m = (p + q) / 2
    if variant == "described":
        return 1 - (_kl(p, m) + _kl(q, m)) / 2
    p, q, m = (np.clip(x, 0.01, 0.99) for x in (p, q, m))
    apart = (_kl(m, p) + _kl(m, q)) / 2
    mean = apart.mean()
    return 0 * apart if mean > 1 else 1 - apart


@pytest.mark.parametrize("variant", ["described", "released"])
@pytest.mark.parametrize("scale", [2.0, 9.0, 40.0])
def test_competition_against_numpy(variant, scale):
    student, teacher = scale * _random(2, 5, 4)
    values = losses.generator_competition(student, teacher, variant=variant)
    expected = _competition(student, teacher, variant)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    values = losses.generator_competition(student, teacher, variant=variant, where=KEEP)
    expected = _competition(student[KEEP], teacher[KEEP], variant)
    np.testing.assert_allclose(values[KEEP], expected, rtol=1e-9, atol=1e-12)


def test_competition_where_the_two_agree_and_the_released_clip():
    """methods.md, E09: equal nets pay 1; textbook JS is at most log 2."""
    student, teacher = 40 * _random(2, 5, 4)
    for variant in ("described", "released"):
        equal = losses.generator_competition(student, student, variant=variant)
        np.testing.assert_allclose(equal.mean(), 1, atol=1e-12)
    opposed = np.array([[99.0, 0]]), np.array([[0, 99.0]])
    lowest = losses.generator_competition(*opposed)
    np.testing.assert_allclose(lowest, 1 - np.log(2), rtol=1e-9)
    clipped = losses.generator_competition(*opposed, variant="released")
    np.testing.assert_array_equal(clipped, 0)


@pytest.mark.parametrize("variant", ["described", "released"])
def test_competition_gradients_against_differences(variant):
    def loss(student, teacher):
        values = losses.generator_competition(student, teacher, variant=variant)
        return (jnp.arange(1.0, 6) * values).sum()

    pair = tuple(2 * _random(2, 5, 4))
    check_grads(jax.jit(loss), pair, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_many_labels_against_numpy():
    logits = 2 * _random(5, 4)
    y = 1 / (1 + np.exp(-logits))
    t = y >= 0.5
    expected = -(t * np.log(y) + (1 - t) * np.log(1 - y))
    where = np.arange(4) < 3
    values = losses.generator_multi_label(logits, where=where)
    np.testing.assert_allclose(values, expected[:, :3].mean(-1), rtol=1e-9)
    values = losses.generator_sparsity(logits, where=where)
    np.testing.assert_allclose(values, y[:, :3].mean(-1), rtol=1e-9)
    for loss in (losses.generator_multi_label, losses.generator_sparsity):
        huge = 1e4 * logits
        value, slope = jax.value_and_grad(lambda x, f=loss: f(x).sum())(huge)
        assert np.isfinite(value) and np.isfinite(slope).all()
        check_grads(lambda x, f=loss: f(x).sum(), (logits,), 1, ("rev",), 1e-6, 1e-6)


def test_refusals_name_the_argument():
    images, noise = _random(5, 4), _random(4, 4)
    with pytest.raises(ValueError, match=r"^noise: expected shape \(5, 4\)"):
        losses.generator_diversity(images, noise)
    with pytest.raises(ValueError, match="^teacher_logits: expected at least"):
        losses.generator_sparsity(images[:0])
    with pytest.raises(ValueError, match="^variant: expected one of"):
        losses.generator_competition(images, images, variant="mine")
