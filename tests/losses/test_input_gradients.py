"""Losses of input gradients against linear networks, NumPy and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    attention_transfer_gradient,
    hard_cross_entropy,
    input_gradient,
    jacobian_matching,
)

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

KERNELS = pytest.mark.parametrize(
    "kernel",
    [
        attention_transfer_gradient,
        jacobian_matching,
        lambda s, t, **k: jacobian_matching(s, t, variant="mean", **k),
    ],
    ids=["attention", "sum", "mean"],
)


def _random(shape=(3, 2, 4, 5)):
    return np.random.default_rng(1).normal(size=(2, *shape))


def test_input_gradient_of_a_linear_network():
    """methods.md, A08: the weights times (probabilities - label)."""
    rng = np.random.default_rng(0)
    weights, images = rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
    labels = jnp.array([2, 0, 3])
    found = input_gradient(lambda x: hard_cross_entropy(x @ weights, labels), images)
    shares = np.exp(images @ weights)
    shares /= shares.sum(axis=1, keepdims=True)
    expected = (shares - np.eye(4)[np.asarray(labels)]) @ weights.T
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_against_numpy():
    student, teacher = _random()
    gap = np.sqrt(((student - teacher) ** 2).sum(axis=(1, 2, 3)))
    values = attention_transfer_gradient(student, teacher)
    np.testing.assert_allclose(values, gap / 2, rtol=1e-10)
    rows = [x.reshape(3, -1) for x in (student, teacher)]
    norms = [np.sqrt((x**2).sum(axis=1)) for x in rows]
    cosine = (rows[0] * rows[1]).sum(axis=1) / (norms[0] * norms[1])
    values = jacobian_matching(student, teacher)
    np.testing.assert_allclose(values, 2 - 2 * cosine, rtol=1e-10)
    values = jacobian_matching(student, teacher, variant="mean")
    np.testing.assert_allclose(values, (2 - 2 * cosine) / 40, rtol=1e-10)
    values = jacobian_matching(1e3 * student, teacher / 7)
    np.testing.assert_allclose(values, 2 - 2 * cosine, rtol=1e-10)


def test_noise_on_the_input_matches_jacobians():
    """For linear networks the noise adds its variance times the squared gap."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6))
    noise = 0.1 * rng.normal(size=(400_000, 6))
    added = np.mean((noise @ (student - teacher)) ** 2)
    images = np.ones((1, 6))
    gradients = [
        input_gradient(lambda x, w=w: x @ w, images) for w in (student, teacher)
    ]
    norm = 2 * attention_transfer_gradient(*gradients)[0]
    np.testing.assert_allclose(0.01 * norm**2, added, rtol=0.01)


@KERNELS
def test_equal_and_zero_gradients(kernel):
    student, _ = _random()
    zero = np.zeros_like(student)
    for pair in ((student, student), (zero, zero)):
        value, gradients = jax.value_and_grad(
            lambda *pair: kernel(*pair).sum(), (0, 1)
        )(*pair)
        np.testing.assert_allclose(value, 0, atol=1e-15)
        np.testing.assert_allclose(gradients, 0, atol=1e-15)
    assert (kernel(student, zero) > 0).all()


@KERNELS
def test_where_leaves_out_pixels(kernel):
    student, teacher = _random()
    keep = np.array([True, False, True, True])
    values = kernel(student, teacher, where=keep[:, None])
    expected = kernel(student[:, :, keep], teacher[:, :, keep])
    np.testing.assert_allclose(values, expected, rtol=1e-10)


@KERNELS
def test_gradients_against_differences(kernel):
    student, teacher = _random((2, 3, 4))
    weights = jnp.arange(1.0, 3)

    def loss(student, teacher):
        return (weights * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


@KERNELS
def test_through_a_network_twice(kernel):
    """The gradient in the parameters of a loss of gradients in the input."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 5)), rng.normal(size=(5, 3))
    images, labels = rng.normal(size=(2, 4)), jnp.array([0, 2])
    teacher = rng.normal(size=(2, 4))

    def loss(first, second):
        def score(x):
            return hard_cross_entropy(jnp.tanh(x @ first) @ second, labels)

        return kernel(input_gradient(score, images), teacher).mean()

    check_grads(jax.jit(loss), (first, second), 1, ("rev",), 1e-6, 1e-6)


def test_bad_arguments_are_refused():
    student, teacher = _random()
    with pytest.raises(ValueError, match="^teacher_gradients: expected the shape of"):
        jacobian_matching(student, teacher[..., :2])
    with pytest.raises(ValueError, match="^variant: expected one of"):
        jacobian_matching(student, teacher, variant="none")
    with pytest.raises(
        ValueError, match="^student_gradients: expected rank at least 2"
    ):
        attention_transfer_gradient(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"^score\(inputs\): expected shape \(3,\)"):
        input_gradient(lambda x: x, student)
    with pytest.raises(ValueError, match="^inputs: expected an array of floating"):
        input_gradient(lambda x: x, np.ones((3, 2), int))
