"""Gradients of terms: projection of conflicts, against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import HARD, Scalar, Term
from kdjax.strategies import gradients
from kdjax.strategies.offline import offline
from tests.strategies.test_offline import PLAIN, STUDENT, TARGETS, value

KEY = jax.random.key(0)


def tree(*numbers):
    """A gradient of two arrays."""
    return {"a": jnp.asarray(numbers[:2], jnp.float32), "b": jnp.float32(numbers[2])}


def flat(x):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)]).astype(float)


def test_gradients_in_conflict_lose_their_parts_along_each_other():
    one, two = np.array([1.0, 0.0, 2.0]), np.array([-3.0, 1.0, 0.5])
    dot = one @ two
    assert dot < 0
    want = (one - dot / (two @ two) * two) + (two - dot / (one @ one) * one)
    found = gradients.resolve_conflicts({"x": tree(*one), "y": tree(*two)}, KEY)
    np.testing.assert_allclose(flat(found), want, rtol=1e-6)
    # Each is at a right angle to the other, and the sum points against neither.
    assert flat(found) @ one > 0 and flat(found) @ two > 0


@pytest.mark.parametrize("other", [(1.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 3.0, 0.0)])
def test_gradients_without_conflict_are_summed(other):
    """Also one of 0, and one at a right angle."""
    one = (1.0, 0.0, 2.0)
    found = gradients.resolve_conflicts({"x": tree(*one), "y": tree(*other)}, KEY)
    np.testing.assert_array_equal(flat(found), np.add(one, other))


def test_three_gradients_are_projected_one_after_another():
    """In one of the orders of the three, by a loop in float64."""
    rng = np.random.default_rng(2)
    each = rng.normal(size=(3, 3))
    each[1] -= each[0]
    each[2] -= each[1]

    def resolve(order):
        total = np.zeros(3)
        for i in range(3):
            own = each[i].copy()
            for j in order:
                if j != i and own @ each[j] < 0:
                    own -= own @ each[j] / (each[j] @ each[j]) * each[j]
            total += own
        return total

    named = {str(i): tree(*x) for i, x in enumerate(each)}
    for seed in range(4):
        key = jax.random.key(seed)
        order = np.asarray(jax.random.permutation(key, 3))
        found = gradients.resolve_conflicts(named, key)
        np.testing.assert_allclose(flat(found), resolve(order), rtol=2e-5, atol=1e-6)


def gradient(terms, **options):
    """(loss, gradients of a step by network)."""
    strategy = offline(STUDENT, terms, steps=11, **options)
    batch = PLAIN._replace(targets=TARGETS)
    variables = strategy.init(jax.random.key(0), batch)
    params = {p: v["params"] for p, v in variables.items()}

    def loss(params):
        values, _ = strategy.loss(
            params, {p: {} for p in params}, batch, strategy.schedules(0), KEY
        )
        return values["student"]

    return jax.value_and_grad(loss)(params)


@pytest.mark.full
def test_a_run_projects_the_gradients_of_its_terms():
    """The student's; the projector has its own, and the loss does not change."""
    terms = {
        "soft": Term("softmax_kl", weight=Scalar(2.0)),
        "hard": HARD,
        "hint": Term("hint_l2", student="hidden", teacher="hidden", projector=True),
    }
    total, found = gradient(terms, project_gradients=True)
    plain_total, _, plain, _ = value(terms)
    np.testing.assert_allclose(total, plain_total, rtol=1e-6)
    connector = "hint connector"
    jax.tree.map(np.testing.assert_array_equal, found[connector], plain[connector])
    each = {name: value({name: term})[2]["student"] for name, term in terms.items()}
    order = jax.random.fold_in(KEY, 3)
    want = gradients.resolve_conflicts(each, order)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found["student"],
        want,
    )
    # Some of these conflict: the sum of all is another gradient.
    assert not np.allclose(flat(found["student"]), flat(plain["student"]), rtol=1e-3)


def test_one_term_has_no_conflict():
    terms = {"soft": Term("softmax_kl")}
    with pytest.warns(UserWarning, match="^strategy.project_gradients: one term has"):
        _, found = gradient(terms, project_gradients=True)
    _, plain = gradient(terms)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8),
        found,
        plain,
    )
