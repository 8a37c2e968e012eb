"""Soft targets of other forms: worked values, NumPy formulas, differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import (
    class_weighted_cross_entropy,
    logit_l1,
    policy_distillation,
    sigmoid_cross_entropy,
    sigmoid_kl,
    soft_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

MASK = np.arange(5) % 3 != 0
WEIGHTS = np.array([1.5, 1.0, 0.0, 2.0, 0.3])


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _random():
    return 2 * np.random.default_rng(1).normal(size=(2, 4, 5))


def test_policy_fixture():
    """methods.md, 3.5: softmax([1.00, 1.01, 0.90] / 0.01)."""
    share = np.array([0.26893814, 0.73104965, 0.00001221])
    values = jnp.array([1.00, 1.01, 0.90])
    # Against a student that says c everywhere, KL = -entropy - log c.
    expected = (share * np.log(share)).sum() + np.log(3)
    np.testing.assert_allclose(
        policy_distillation(jnp.zeros(3), values), expected, atol=1e-6
    )
    np.testing.assert_allclose(
        policy_distillation(jnp.log(share), values), 0, atol=1e-7
    )


def test_policy_against_numpy():
    student, teacher = _random()
    p, q = _softmax(teacher / 0.5), _softmax(student / 3)
    values = policy_distillation(
        student, teacher, temperature=0.5, student_temperature=3.0
    )
    np.testing.assert_allclose(values, (p * np.log(p / q)).sum(-1), rtol=1e-9)
    gradient = jax.grad(
        lambda s: policy_distillation(
            s, teacher, temperature=0.5, student_temperature=3.0
        ).sum()
    )(student)
    np.testing.assert_allclose(gradient, (q - p) / 3, atol=1e-12)


def test_policy_temperatures_are_checked():
    student, teacher = _random()
    with pytest.raises(ValueError, match="^student_temperature: expected .*, got 0.0"):
        policy_distillation(student, teacher, student_temperature=0.0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_binary_cross_entropy_against_numpy(temperature):
    student, teacher = _random()
    p, q = (1 / (1 + np.exp(-x / temperature)) for x in (teacher, student))
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(-1) * temperature**2
    values = sigmoid_cross_entropy(student, teacher, temperature=temperature)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    if temperature == 0.5:
        # Behind a tanh, in [0, 1].
        np.testing.assert_allclose(p, (1 + np.tanh(teacher)) / 2, atol=1e-12)


def test_binary_cross_entropy_is_least_at_the_teacher():
    """methods.md, C05: there it is the teacher's entropy; the gradient is KL's."""
    student, teacher = _random()
    p = 1 / (1 + np.exp(-teacher))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(sigmoid_cross_entropy(teacher, teacher), entropy)
    slopes = [
        jax.grad(lambda s, f=f: f(s, teacher).sum())(student)
        for f in (sigmoid_cross_entropy, sigmoid_kl)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-12)


def test_weights_of_classes():
    student, teacher = _random()
    p, log_q = _softmax(teacher / 2), np.log(_softmax(student / 2))
    values = class_weighted_cross_entropy(
        student, teacher, class_weights=WEIGHTS, temperature=2.0
    )
    np.testing.assert_allclose(values, -4 * (WEIGHTS * p * log_q).sum(-1), rtol=1e-9)
    ones = class_weighted_cross_entropy(student, teacher, class_weights=np.ones(5))
    np.testing.assert_allclose(ones, soft_cross_entropy(student, teacher), rtol=1e-12)
    with pytest.raises(ValueError, match=r"^class_weights: expected shape \(5,\)"):
        class_weighted_cross_entropy(student, teacher, class_weights=WEIGHTS[:4])


def test_absolute_difference():
    student, teacher = _random()
    expected = np.abs(student - teacher)[:, MASK].sum(-1)
    np.testing.assert_allclose(logit_l1(student, teacher, where=MASK), expected)
    slope = jax.grad(lambda s: logit_l1(s, teacher).sum())(student)
    np.testing.assert_array_equal(slope, np.sign(student - teacher))


@pytest.mark.parametrize(
    "kernel",
    [
        lambda s, t: policy_distillation(s, t, temperature=0.7, where=MASK),
        lambda s, t: sigmoid_cross_entropy(s, t, temperature=2.0, where=MASK),
        lambda s, t: class_weighted_cross_entropy(
            s, t, class_weights=WEIGHTS, where=MASK
        ),
    ],
)
def test_gradients_against_differences(kernel):
    def loss(student, teacher):
        return (jnp.arange(1.0, 5) * kernel(student, teacher)).sum()

    check_grads(jax.jit(loss), tuple(_random()), 1, ("fwd", "rev"), 1e-6, 1e-6)
