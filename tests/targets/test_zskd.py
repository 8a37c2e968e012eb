"""What to aim at without data: formulas in NumPy, statistics of draws, differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses, targets

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

WEIGHTS = np.random.default_rng(1).normal(size=(6, 4))


def test_class_similarity_against_numpy():
    unit = WEIGHTS / np.sqrt((WEIGHTS**2).sum(0))
    cosine = unit.T @ unit
    expected = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    similarity = np.asarray(targets.class_similarity(WEIGHTS))
    np.testing.assert_allclose(similarity, expected, rtol=1e-9, atol=1e-12)
    # methods.md, E06: the diagonal is the maximum.
    np.testing.assert_allclose(np.diag(similarity), 1)
    flat = targets.class_similarity(np.ones((6, 4)))
    np.testing.assert_array_equal(flat, 0)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_concentration_against_numpy(beta):
    similarity = np.asarray(targets.class_similarity(WEIGHTS))
    low, high = (f(similarity, 1, keepdims=True) for f in (np.min, np.max))
    expected = beta * (similarity - low) / (high - low) + 1e-4
    values = targets.impression_concentration(similarity, beta=beta)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    with pytest.raises(ValueError, match=r"^similarity: expected shape \(4, 4\)"):
        targets.impression_concentration(similarity[:, :3])


@pytest.mark.full
def test_soft_labels_have_the_dirichlet_s_mean_and_variance():
    """methods.md, E06: the mean is each one's share of the concentration."""
    concentration = np.array([2.0, 1.0, 0.5, 1e-4])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.vmap(lambda k: targets.sample_soft_labels(k, concentration))
    log_y = np.asarray(jax.jit(draw)(keys))
    assert np.isfinite(log_y).all()
    y = np.exp(log_y)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-9)
    share, total = concentration / concentration.sum(), concentration.sum()
    np.testing.assert_allclose(y.mean(0), share, atol=0.01)
    np.testing.assert_allclose(y.var(0), share * (1 - share) / (total + 1), atol=0.01)
    tiny = targets.sample_soft_labels(
        jax.random.key(0), jnp.full((9, 5), 1e-4, jnp.float32)
    )
    assert np.isfinite(tiny).all()


@pytest.mark.parametrize("variant", ["described", "released"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_sampled_activations_have_their_statistics(variant, diagonal):
    """methods.md, E01: within Monte-Carlo error; the released form squares."""
    rng = np.random.default_rng(1)
    mean, root = rng.normal(size=3), rng.normal(size=(3, 3))
    covariance = np.array([0.5, 1.0, 2.0]) if diagonal else root @ root.T / 2
    draws = np.asarray(
        targets.sample_activations(
            jax.random.key(0), mean, covariance, count=40_000, variant=variant
        )
    )
    full = np.diag(covariance) if diagonal else covariance
    expected = full if variant == "described" else full @ full
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.1)
    found = np.cov(draws.T)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("variant", ["top", "all"])
def test_reconstruction_against_numpy(variant):
    features, targets = np.random.default_rng(1).normal(size=(2, 5, 3, 4))
    keep = np.random.default_rng(2).uniform(size=(3, 4)) > 0.4
    gap = np.maximum(features, 0) - np.maximum(targets, 0)
    expected = (gap[:, keep] ** 2).mean(-1)
    if variant == "all":
        expected = expected / keep.sum()

    def values(features, targets):
        return losses.activation_reconstruction(
            features, targets, variant=variant, where=keep
        )

    found = values(np.where(keep, features, np.nan), targets)
    np.testing.assert_allclose(found, expected, rtol=1e-9)

    def loss(features, targets):
        return (jnp.arange(1.0, 6) * values(features, targets)).sum()

    check_grads(loss, (features, targets), 1, ("fwd", "rev"), 1e-6, 1e-6)
    zero = jax.grad(loss)(np.zeros_like(features), targets)
    np.testing.assert_array_equal(zero, 0)


def test_reconstruction_sees_nan():
    broken, fine = np.array([[np.nan]]), np.array([[1.0]])
    for pair in ((broken, fine), (fine, broken)):
        assert np.isnan(losses.activation_reconstruction(*pair)).all()
        assert np.isnan(
            losses.activation_reconstruction(*pair, basis=np.ones((1, 1)))
        ).all()


def test_reconstruction_refuses():
    features = np.ones((2, 3))
    with pytest.raises(ValueError, match="^targets: expected the shape of features"):
        losses.activation_reconstruction(features, features[:, :2])
    with pytest.raises(ValueError, match="^count: expected"):
        targets.sample_activations(jax.random.key(0), features[0], features[0], count=0)


def test_graph_patterns_are_numpy_s_and_the_spectral_distance_follows():
    """A weighted graph of two parts: the smoothest patterns are constant on a part."""
    rng = np.random.default_rng(4)
    weights = np.abs(rng.normal(size=(6, 6)))
    adjacency = np.tril(weights, -1) + np.tril(weights, -1).T
    adjacency[:2, 2:] = adjacency[2:, :2] = 0
    basis = np.asarray(targets.graph_fourier_basis(adjacency, modes=3))
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    energy = np.linalg.eigvalsh(laplacian)[:3]
    np.testing.assert_allclose(laplacian @ basis, basis * energy, atol=1e-12)
    np.testing.assert_allclose(energy[:2], 0, atol=1e-12)
    np.testing.assert_allclose(basis[0, :2], basis[1, :2], atol=1e-12)

    features, aims = rng.normal(size=(2, 5, 6))
    gap = np.maximum(features, 0) - np.maximum(aims, 0)
    for variant, share in (("top", 3), ("all", 9)):

        def loss(x, variant=variant):
            return losses.activation_reconstruction(
                x, aims, variant=variant, basis=basis
            )

        expected = ((gap @ basis) ** 2).sum(1) / share
        np.testing.assert_allclose(loss(features), expected, rtol=1e-12)
        check_grads(lambda x, f=loss: f(x).sum(), (features,), 1, ["rev"], 1e-6, 1e-6)
    whole = losses.activation_reconstruction(
        features, aims, basis=targets.graph_fourier_basis(adjacency)
    )
    np.testing.assert_allclose(whole, (gap**2).mean(1), rtol=1e-9)


def test_graph_patterns_refuse_what_is_no_graph():
    def found(adjacency, **knobs):
        return targets.graph_fourier_basis(np.array(adjacency), **knobs)

    with pytest.raises(ValueError, match="^adjacency: expected a symmetric"):
        found([[0.0, 1.0], [0.5, 0.0]])
    for bad in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="^adjacency: expected finite values of"):
            found([[0.0, bad], [bad, 0.0]])
    with pytest.raises(ValueError, match="^adjacency: expected"):
        found([[0.0, 1.0]])
    with pytest.raises(ValueError, match="^modes: expected"):
        found([[0.0, 1.0], [1.0, 0.0]], modes=3)
    with pytest.raises(ValueError, match="^basis: expected"):
        losses.activation_reconstruction(
            np.ones((2, 3)), np.ones((2, 3)), basis=np.ones((2, 2))
        )
