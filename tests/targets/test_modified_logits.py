"""Targets by shuffling, relaxed sampling and rules; weights of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import targets

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

LOGITS = np.random.default_rng(1).normal(size=(6, 5))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_shuffle_keeps_the_largest_and_the_set_of_the_rest(axis):
    """methods.md, B07: DKPP."""
    logits = LOGITS if axis == 1 else LOGITS.T
    shuffle = jax.jit(lambda k: targets.permute_dark_knowledge(k, logits, axis=axis))
    found = [np.asarray(shuffle(jax.random.key(i))) for i in range(30)]
    for x in found:
        np.testing.assert_array_equal(np.argmax(x, axis), np.argmax(logits, axis))
        np.testing.assert_array_equal(np.sort(x, axis), np.sort(logits, axis))
    assert len({x.tobytes() for x in found}) == 30
    # Every other class comes up at every other place.
    first = np.stack([np.moveaxis(x, axis, -1)[0] for x in found])
    other = int(np.argmin(LOGITS[0]))
    assert len(set(first[:, other])) == 4


def test_relaxed_draws_follow_the_softmax():
    """methods.md, D06: the mean of near-hard draws is the softmax."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.vmap(
        lambda k: targets.gumbel_softmax(k, jnp.asarray(LOGITS[0]), temperature=0.01)
    )
    draws = np.asarray(jax.jit(draw)(keys))
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-9)
    np.testing.assert_allclose(draws.mean(0), _softmax(LOGITS[0]), atol=0.015)
    soft = targets.gumbel_softmax(jax.random.key(0), LOGITS, temperature=1e6)
    np.testing.assert_allclose(soft, 0.2, atol=1e-4)
    noise = jax.random.gumbel(jax.random.key(3), LOGITS.shape, LOGITS.dtype)
    drawn = targets.gumbel_softmax(jax.random.key(3), LOGITS, temperature=0.5)
    np.testing.assert_allclose(drawn, _softmax((LOGITS + noise) / 0.5), rtol=1e-9)


def test_rules_shift_by_their_closed_form():
    """methods.md, C13: q is p exp(C sum lambda f), and C = 0 gives p."""
    rng = np.random.default_rng(2)
    scores, weights = rng.normal(size=(6, 3, 5)), rng.uniform(size=(6, 3))
    knobs = {"rule_scores": scores, "confidence": weights}
    values = targets.rule_teacher_logits(LOGITS, **knobs, strength=1.7)
    p = _softmax(LOGITS) * np.exp(1.7 * np.einsum("nl,nlk->nk", weights, scores))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(_softmax(np.asarray(values)), p, rtol=1e-9)
    same = targets.rule_teacher_logits(LOGITS, **knobs, strength=0.0)
    np.testing.assert_array_equal(same, LOGITS)

    def loss(logits, scores, weights):
        x = targets.rule_teacher_logits(
            logits, rule_scores=scores, confidence=weights, strength=1.7
        )
        return jnp.square(x).sum()

    check_grads(loss, (LOGITS, scores, weights), 1, ("fwd", "rev"), 1e-6, 1e-6)
    with pytest.raises(ValueError, match=r"^confidence: expected shape \(6, 3\)"):
        targets.rule_teacher_logits(
            LOGITS, rule_scores=scores, confidence=weights[:, :2], strength=1.0
        )


def test_confidence_weights_sum_to_the_batch():
    """methods.md, B07: CWTM."""
    best = _softmax(LOGITS).max(-1)
    weights = targets.confidence_weights(LOGITS)
    np.testing.assert_allclose(weights, best / best.mean(), rtol=1e-12)
    keep = np.array([True, False, True, True, False, True])
    spoilt = np.where(keep[:, None], LOGITS, np.nan)
    weights = np.asarray(targets.confidence_weights(spoilt, where=keep))
    expected = targets.confidence_weights(LOGITS[keep])
    np.testing.assert_allclose(weights[keep], expected, rtol=1e-12)
    np.testing.assert_array_equal(weights[~keep], 0)
    other = targets.confidence_weights(LOGITS.T, axis=0)
    np.testing.assert_allclose(other, best / best.mean(), rtol=1e-12)


def test_fidelity_has_its_two_ends():
    """methods.md, E10: the highest at 0, the typical at the mean."""
    deviation = np.array([0.0, 1.0, 2.0, 5.0])
    weights = targets.fidelity_weights(deviation, highest=3.0, typical=0.5)
    expected = 3 * np.exp(-np.log(6.0) * deviation / 2)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(weights[0], 3)
    np.testing.assert_allclose(weights[2], 0.5)
    zero = targets.fidelity_weights(np.zeros(3), highest=3.0, typical=0.5)
    np.testing.assert_array_equal(zero, 3)


def test_reliable_where_sure_and_agreed():
    """methods.md, E13: disagreement excludes; entropy does."""
    sure, unsure = np.array([5.0, 0, 0]), np.array([0.2, 0.1, 0])
    teacher = np.stack([sure, sure, unsure])
    student = np.stack([unsure, unsure[::-1], unsure])
    mask = targets.reliability_mask(student, teacher)
    np.testing.assert_array_equal(mask, [True, False, False])
    all_of_them = targets.reliability_mask(student, teacher, entropy=1.0)
    np.testing.assert_array_equal(all_of_them, [True, False, True])
    p = _softmax(unsure)
    share = -(p * np.log(p)).sum() / np.log(3)
    for entropy, expected in ((share - 1e-6, False), (share + 1e-6, True)):
        found = targets.reliability_mask(unsure, unsure, entropy=entropy)
        assert bool(found) is expected
