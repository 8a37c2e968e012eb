"""Class by class: worked values, NumPy formulas, gradients against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    log_softmax_l2,
    logit_l2,
    probability_l1,
    probability_mse,
    sigmoid_kl,
    softmax_kl,
)

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

MASK = np.arange(7) % 3 != 0


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _random(rows=5, classes=7, scale=3.0):
    return scale * np.random.default_rng(1).normal(size=(2, rows, classes))


def test_euclidean_distances_of_big_vision():
    """shared/reference/funmatch.md, 2.3."""
    student, teacher = np.array([1.0, 2, 3, 0]), np.array([4.0, 2, 1, 0])
    np.testing.assert_allclose(logit_l2(student, teacher), 3.605551, atol=1e-6)
    distance = log_softmax_l2(student, teacher)
    np.testing.assert_allclose(distance, 3.705411, atol=1e-6)


def test_euclidean_distances_against_numpy():
    student, teacher = _random()
    expected = np.sqrt(((student - teacher) ** 2).sum(-1))
    np.testing.assert_allclose(logit_l2(student, teacher), expected, rtol=1e-12)
    gap = np.log(_softmax(student)) - np.log(_softmax(teacher))
    expected = np.sqrt((gap**2).sum(-1))
    np.testing.assert_allclose(log_softmax_l2(student, teacher), expected, rtol=1e-9)
    shifted = log_softmax_l2(student + 3, teacher - 1)
    np.testing.assert_allclose(shifted, expected, rtol=1e-9)
    assert not np.allclose(logit_l2(student + 3, teacher), logit_l2(student, teacher))


@pytest.mark.parametrize("kernel", [logit_l2, log_softmax_l2])
def test_euclidean_gradient_has_length_one_and_none_at_zero(kernel):
    student, teacher = _random()
    at_zero = jax.grad(lambda s: kernel(s, teacher).sum())(teacher)
    np.testing.assert_array_equal(at_zero, 0)
    if kernel is logit_l2:
        gradient = jax.grad(lambda s: kernel(s, teacher).sum())(student)
        np.testing.assert_allclose((gradient**2).sum(-1), 1, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_probability_distances_against_numpy(temperature):
    student, teacher = _random()
    gap = _softmax(student / temperature) - _softmax(teacher / temperature)
    values = probability_mse(student, teacher, temperature=temperature)
    np.testing.assert_allclose(values, temperature**2 * (gap**2).mean(-1), rtol=1e-9)
    if temperature == 1:
        values = probability_l1(student, teacher)
        np.testing.assert_allclose(values, abs(gap).mean(-1), rtol=1e-9)
        assert (values <= 2 / 7).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_sigmoid_kl_against_numpy_and_the_softmax_of_two(temperature):
    student, teacher = _random()
    q, p = (1 / (1 + np.exp(-x / temperature)) for x in (student, teacher))
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    values = sigmoid_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(values, temperature**2 * each.sum(-1), rtol=1e-9)
    two = [np.stack([x, 0 * x], -1) for x in (student, teacher)]
    pairs = softmax_kl(*two, temperature=temperature).sum(-1)
    np.testing.assert_allclose(values, pairs, rtol=1e-9)


@pytest.mark.parametrize("kernel", [probability_mse, probability_l1])
def test_probability_distances_ignore_a_constant_on_the_logits(kernel):
    student, teacher = _random()
    shifted = kernel(student + 3, teacher - 1)
    np.testing.assert_allclose(shifted, kernel(student, teacher), rtol=1e-9)


def test_sigmoid_kl_has_the_gradient_of_binary_cross_entropy():
    student, teacher = _random()
    gradient = jax.grad(lambda s: sigmoid_kl(s, teacher, temperature=2.0).sum())
    q, p = (1 / (1 + np.exp(-x / 2)) for x in (student, teacher))
    np.testing.assert_allclose(gradient(student), 2 * (q - p), rtol=1e-9)


def test_sigmoid_kl_of_sure_labels_is_as_large_as_their_logits():
    value = sigmoid_kl(np.array([-1e4, 1e4]), np.array([1e4, 1e4]))
    np.testing.assert_allclose(value, 1e4, rtol=1e-12)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda s, t: logit_l2(s, t, where=MASK),
        log_softmax_l2,
        lambda s, t: probability_mse(s, t, temperature=2.0, where=MASK),
        probability_l1,
        lambda s, t: sigmoid_kl(s, t, temperature=2.0, where=MASK),
    ],
)
def test_gradients_against_differences(kernel):
    student, teacher = _random(rows=3, scale=1.0)
    weights = jnp.arange(1.0, 4)

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("rev",), 1e-6, 1e-6)
