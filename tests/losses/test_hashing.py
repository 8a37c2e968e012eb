"""Hashing and discrepancies: loops in NumPy, closed forms, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import compact_bilinear, hashing_likelihood, mmd
from kdjax.targets import neighbor_similarity

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("float64", "strict_dtypes")]

RNG = np.random.default_rng(1)
CODES, OTHERS = RNG.normal(size=(4, 3)), RNG.normal(size=(6, 3))
SIMILARITY = 0.999 * (RNG.uniform(size=(4, 6)) > 0.5)


def _unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def test_neighbors_are_the_union_of_both_sides():
    images, texts = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 2))
    expected = np.zeros((7, 7))
    for x in (images, texts):
        cosine = _unit(x) @ _unit(x).T
        for i, row in enumerate(cosine):
            expected[i, np.argsort(-row)[:3]] = 0.999
    found = neighbor_similarity(images, texts, neighbors=3)
    np.testing.assert_array_equal(found, expected)
    # All zero rows are alike: each is its own neighbor all the same.
    alone = neighbor_similarity(np.zeros((3, 2)), neighbors=1, value=1.0)
    np.testing.assert_array_equal(alone, np.eye(3))


@pytest.mark.parametrize("variant", ["described", "released"])
def test_likelihood_against_numpy(variant):
    theta = CODES @ OTHERS.T / 2
    gap = np.log1p(np.exp(theta)) - SIMILARITY * theta
    expected = (gap**2 if variant == "released" else gap).mean(1)
    call = functools.partial(hashing_likelihood, variant=variant)
    values = call(CODES, SIMILARITY, other_codes=OTHERS)
    np.testing.assert_allclose(values, expected, rtol=1e-9)

    def loss(codes, similarity, others):
        values = call(codes, similarity, other_codes=others)
        return (jnp.arange(1.0, 5) * values).sum()

    arguments = (CODES, SIMILARITY, OTHERS)
    check_grads(jax.jit(loss), arguments, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_likelihood_s_gradient_is_the_closed_form():
    """methods.md, C06: half the sum of (sigmoid(theta) - S) h."""
    slope = jax.grad(
        lambda c: 6 * hashing_likelihood(c, SIMILARITY, other_codes=OTHERS).sum()
    )(CODES)
    sigma = 1 / (1 + np.exp(-CODES @ OTHERS.T / 2))
    np.testing.assert_allclose(slope, (sigma - SIMILARITY) @ OTHERS / 2, rtol=1e-9)


def test_likelihood_s_limits_and_refusals():
    huge = hashing_likelihood(1e4 * CODES, SIMILARITY, other_codes=OTHERS)
    assert np.isfinite(huge).all()
    with pytest.raises(ValueError, match=r"^teacher_similarity: expected .*\(4, 6\)"):
        hashing_likelihood(CODES, SIMILARITY[:, :5], other_codes=OTHERS)
    with pytest.raises(ValueError, match=r"^other_codes: expected shape \(6, 3\)"):
        hashing_likelihood(CODES, SIMILARITY, other_codes=OTHERS[:, :2])


def _mmd(s, t, kernel):
    both = np.concatenate([s, t])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    inner = both @ both.T
    k = {
        "linear": inner,
        "polynomial": inner**2,
        "gaussian": np.exp(-squared / (2 * squared.mean())),
    }[kernel]
    n = len(s)
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_discrepancy_against_numpy(kernel):
    student, teacher = RNG.normal(size=(2, 6, 3))
    call = jax.jit(functools.partial(mmd, kernel=kernel))
    expected = _mmd(student, teacher, kernel)
    assert expected > 0
    np.testing.assert_allclose(call(student, teacher).mean(), expected, rtol=1e-9)
    shuffled = call(student[::-1], teacher).mean()
    np.testing.assert_allclose(shuffled, expected, rtol=1e-9)
    keep = np.array([True, False, True, True, False, True])
    values = np.asarray(call(student, teacher, where=keep))
    expected = _mmd(student[keep], teacher[keep], kernel)
    np.testing.assert_allclose(values[keep].mean(), expected, rtol=1e-9)
    if kernel == "linear":
        gap = student[keep].mean(0) - teacher[keep].mean(0)
        np.testing.assert_allclose(expected, (gap**2).sum(), rtol=1e-9)

    def loss(student, teacher):
        return (jnp.arange(1.0, 7) * call(student, teacher, where=keep)).sum()

    check_grads(loss, (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_sketch_has_the_products_of_the_inner_products():
    """methods.md, C07: unbiased over the hashes, its error falls with the width."""
    a, b, c, d = RNG.normal(size=(4, 5))
    pair = jax.vmap(
        lambda key: jnp.dot(
            compact_bilinear(a, b, key=key, width=32),
            compact_bilinear(c, d, key=key, width=32),
        )
    )
    found = np.asarray(jax.jit(pair)(jax.random.split(jax.random.key(0), 4000)))
    exact = (a @ c) * (b @ d)
    assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(4000)
    batch = compact_bilinear(
        np.stack([a, c]), np.stack([b, d]), key=jax.random.key(1), width=7
    )
    for i, (x, y) in enumerate(((a, b), (c, d))):
        alone = compact_bilinear(x, y, key=jax.random.key(1), width=7)
        np.testing.assert_allclose(batch[i], alone, rtol=1e-9, atol=1e-12)
    check_grads(
        lambda x, y: compact_bilinear(x, y, key=jax.random.key(1), width=7).sum(),
        (a, b), 1, ("fwd", "rev"), 1e-6, 1e-6,
    )  # fmt: skip
