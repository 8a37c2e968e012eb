"""Several teachers as one: NumPy formulas, identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import softmax_kl
from kdjax.targets import ensemble_logits, teacher_weights

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

TEACHERS = 2 * np.random.default_rng(1).normal(size=(3, 4, 5))
WEIGHTS = np.array([0.5, 0.3, 0.2])


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_means_against_numpy():
    mixed = ensemble_logits(TEACHERS, weights=WEIGHTS, temperature=3.0)
    expected = np.einsum("m,mnk->nk", WEIGHTS, _softmax(TEACHERS / 3))
    np.testing.assert_allclose(_softmax(np.asarray(mixed) / 3), expected, rtol=1e-9)
    geometric = ensemble_logits(TEACHERS, weights=WEIGHTS, mean="geometric")
    np.testing.assert_allclose(geometric, np.einsum("m,mnk->nk", WEIGHTS, TEACHERS))
    assert not np.allclose(_softmax(np.asarray(geometric) / 3), expected, rtol=1e-2)
    swapped = ensemble_logits(np.moveaxis(TEACHERS, -1, 1), axis=1)
    np.testing.assert_allclose(swapped.T, ensemble_logits(TEACHERS), rtol=1e-12)


def test_weights_per_example_and_none():
    weights = np.stack([np.eye(4)[0], np.eye(4)[1], np.eye(4)[2]])
    mixed = np.asarray(ensemble_logits(TEACHERS, weights=weights))
    for i in range(3):
        share = _softmax(mixed[i])
        np.testing.assert_allclose(share, _softmax(TEACHERS[i, i]), rtol=1e-9)
    np.testing.assert_array_equal(mixed[3], 0)
    slope = jax.grad(lambda t: ensemble_logits(t, weights=weights).sum())(TEACHERS)
    assert np.isfinite(slope).all()


def test_gradient_to_the_student_is_that_of_the_weighted_sum():
    """methods.md, C01 (and A06: several teachers summed)."""
    student = TEACHERS[0] + 1.0 * np.arange(5)

    def one(s):
        mixed = ensemble_logits(TEACHERS, weights=WEIGHTS, temperature=2.0)
        return softmax_kl(s, mixed, temperature=2.0).sum()

    def each(s):
        values = [softmax_kl(s, t, temperature=2.0).sum() for t in TEACHERS]
        return sum(w * v for w, v in zip(WEIGHTS, values, strict=True))

    np.testing.assert_allclose(jax.grad(one)(student), jax.grad(each)(student))


def test_mean_s_gradients_against_differences():
    def loss(teachers, weights):
        mixed = ensemble_logits(teachers, weights=weights, temperature=2.0)
        return (mixed * jnp.arange(20.0).reshape(4, 5)).sum()

    check_grads(jax.jit(loss), (TEACHERS, WEIGHTS), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_rules_of_weights():
    share = _softmax(TEACHERS)
    entropy = -(share * np.log(share)).sum(-1)
    expected = np.exp(-entropy) / np.exp(-entropy).sum(0)
    np.testing.assert_allclose(teacher_weights(TEACHERS), expected, rtol=1e-9)
    best = share.max(-1)
    weights = teacher_weights(TEACHERS, rule="confidence")
    np.testing.assert_allclose(weights, best / best.sum(0), rtol=1e-9)


def test_oracle_takes_those_who_are_right():
    """methods.md, H01: all, some, none correct."""
    logits = np.zeros((2, 3, 2))
    logits[0, :, 0] = logits[1, 0, 0] = logits[1, 1, 1] = logits[1, 2, 0] = 1
    labels = np.array([0, 0, 1])
    weights = teacher_weights(logits, rule="oracle", labels=labels)
    np.testing.assert_array_equal(weights, [[0.5, 1, 0], [0.5, 0, 0]])
    with pytest.raises(ValueError, match="^labels: expected class ids"):
        teacher_weights(logits, rule="oracle")


def test_refusals_name_the_argument():
    with pytest.raises(ValueError, match="^axis: expected the axis of the classes"):
        ensemble_logits(TEACHERS, axis=0)
    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\)"):
        ensemble_logits(TEACHERS, weights=WEIGHTS[:2])
    with pytest.raises(ValueError, match="^teacher_logits: expected at least"):
        teacher_weights(TEACHERS[:, :0])
