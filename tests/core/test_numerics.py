"""Functions that stay finite, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.core import checks, numerics

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_widen(float64):
    assert numerics.promote(jnp.ones(1, jnp.bfloat16)).dtype == jnp.float32
    assert numerics.promote(jnp.ones(1, jnp.float16)).dtype == jnp.float32
    assert numerics.promote(jnp.ones(1, jnp.float32)).dtype == jnp.float32
    assert numerics.promote(np.ones(1, np.float64)).dtype == jnp.float64
    assert numerics.promote(jnp.ones(1, jnp.int8)).dtype == jnp.int8


def test_widen_together(float64):
    half, single, double = (
        jnp.ones(1, d) for d in (jnp.bfloat16, jnp.float32, jnp.float64)
    )
    pair = numerics.promote_together(half, half.astype(jnp.float16))
    assert {x.dtype for x in pair} == {jnp.dtype(jnp.float32)}
    pair = numerics.promote_together(double, single)
    assert {x.dtype for x in pair} == {jnp.dtype(jnp.float64)}


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_tempered_log_softmax_is_jax_s(float64, temperature):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5))
    for axis in (1, -1):
        ours = numerics.tempered_log_softmax(logits, temperature, axis)
        expected = jax.nn.log_softmax(logits / temperature, axis)
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_tempered_log_softmax_where_is_slicing(float64):
    logits = np.random.default_rng(0).normal(size=(3, 5))
    keep = np.array([True, False, True, True, False])
    logits[:, ~keep] = [np.nan, np.inf]

    def masked(x):
        return numerics.tempered_log_softmax(x, 2.0, where=keep)

    expected = jax.nn.log_softmax(logits[:, keep] / 2)
    np.testing.assert_allclose(masked(logits)[:, keep], expected, rtol=1e-12)
    np.testing.assert_array_equal(masked(logits)[:, ~keep], 0)
    assert np.isfinite(jax.jacrev(masked)(logits)).all()


@pytest.mark.full
@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_tempered_log_softmax_is_finite_beside_masked_entries(scale):
    """What is masked lies far above what is not, and the other way round."""
    logits = np.array([scale, scale, 0.0], np.float32)
    for keep in ([True, True, False], [False, False, True], [False] * 3):

        def masked(x, temperature, keep=keep):
            return numerics.tempered_log_softmax(x, temperature, where=np.array(keep))

        assert np.isfinite(masked(logits, 1.0)).all()
        for gradient in jax.jacrev(masked, (0, 1))(logits, 1.0):
            assert np.isfinite(gradient).all()


def test_safe_sqrt_and_norm():
    x = np.array([0.0, 4.0, np.nan, -1.0], np.float32)
    value, slope = jax.vmap(jax.value_and_grad(numerics.safe_sqrt))(x)
    np.testing.assert_array_equal(value, [0, 2, np.nan, 0])
    np.testing.assert_array_equal(slope, [0, 0.25, np.nan, 0])
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    value, slope = jax.vmap(jax.value_and_grad(numerics.safe_norm))(rows)
    np.testing.assert_allclose(value, [5, 0])
    np.testing.assert_allclose(slope, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_l2_normalize(float64):
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [3e-13, 4e-13]])
    expected = [[0.6, 0.8], [0, 0], [0.3, 0.4]]
    np.testing.assert_allclose(numerics.l2_normalize(rows), expected, rtol=1e-12)
    columns = numerics.l2_normalize(rows.T, axis=0)
    np.testing.assert_allclose(columns.T, expected, rtol=1e-12)
    slope = jax.vmap(jax.jacrev(numerics.l2_normalize))(rows)
    np.testing.assert_array_equal(slope[1], 0)
    np.testing.assert_allclose(slope[2], 1e12 * np.eye(2), rtol=1e-6)
    check_grads(numerics.l2_normalize, (rows[:1],), 1, ("fwd", "rev"), 1e-8, 1e-8)


def test_huber(float64):
    x = np.array([0.0, 0.5, -1.0, 1.0, 3.0, -1e200, np.nan])
    value, slope = jax.vmap(jax.value_and_grad(numerics.huber))(x)
    expected = [0, 0.125, 0.5, 0.5, 2.5, 1e200, np.nan]
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(slope[:-1], [0, 0.5, -1, 1, 1, -1], rtol=1e-12)
    np.testing.assert_allclose(numerics.huber(x[4:5], delta=2.0), [4.0])


@pytest.mark.full
def test_pairwise_distances(float64):
    x = np.random.default_rng(0).normal(size=(5, 3))
    x[4] = x[0]
    expected = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    expected[0, 4] = expected[4, 0] = 1e-6
    distances = numerics.pairwise_distances(x)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    np.testing.assert_array_equal(np.diag(distances), 0)
    check_grads(numerics.pairwise_distances, (x[:4],), 1, ("fwd", "rev"), 1e-7, 1e-7)
    check_grads(numerics.pairwise_distances, (x[:3],), 2, ("rev",), 1e-5, 1e-5)
    slope = jax.grad(lambda x: numerics.pairwise_distances(x)[0, 4])(x)
    np.testing.assert_array_equal(slope, 0)


def test_pairwise_distances_keep_the_digits_of_near_neighbors():
    """A Gram matrix in float32 would return zero or noise here."""
    x = np.array([[1000.0, 0.0], [1000.0, 1e-2]], np.float32)
    distances = numerics.pairwise_distances(x)
    np.testing.assert_allclose(distances[0, 1], 1e-2, rtol=1e-6)
    assert np.isnan(numerics.pairwise_distances(x * np.float32(np.nan))[0, 1])


def test_pairwise_distances_keep_the_direction_of_near_neighbors():
    """Of two rows a thousandth apart, among others, far from the origin."""
    rng = np.random.default_rng(0)
    x = 10 + rng.normal(size=(32, 17)).astype(np.float32)
    x[1] = x[0] + np.float32(1e-3) * rng.normal(size=17).astype(np.float32)
    slope = jax.grad(lambda x: numerics.pairwise_distances(x)[0, 1])(x)
    gap = (x[1] - x[0]).astype(np.float64)
    np.testing.assert_allclose(slope[1], gap / np.linalg.norm(gap), atol=1e-3)
    np.testing.assert_allclose(slope[0], -slope[1], atol=2e-3)
    assert np.abs(slope[2:]).max() < 1e-3


@pytest.mark.parametrize(
    "check, message",
    [
        (lambda x: checks.integer("ids", x), "^ids: expected .*integer.*float32"),
        (lambda x: checks.rank("x", x, 3), r"^x: expected rank 3, got rank 2"),
        (lambda x: checks.shape("x", x, (2, 4)), r"^x: .*\(2, 4\), got .*\(2, 3\)"),
        (lambda x: checks.axis(2, "x", x), r"^axis: expected an axis of x"),
        (lambda x: checks.positive("t", x), r"^t: expected a finite number above 0"),
        (lambda x: checks.between("s", 2, 0.0, 1.0), r"^s: expected .*\[0.0, 1.0\]"),
        (lambda x: checks.one_of("c", "d", {"a", "b"}), r"^c: .*\['a', 'b'\], got 'd'"),
    ],
)
def test_checks_say_what_was_expected_and_what_came(check, message):
    with pytest.raises(ValueError, match=message):
        check(jnp.ones((2, 3)))


def test_checks_let_good_values_and_traced_ones_through():
    checks.rank("x", np.ones((2, 3)), 2)
    checks.rank("x", np.ones((2, 3)), 1, at_least=True)
    checks.integer("ids", np.ones(2, np.uint8))
    assert checks.axis(-1, "x", np.ones((2, 3))) == 1

    @jax.jit
    def traced(value):
        checks.positive("value", value)
        checks.between("value", value, 0.0, 1.0)
        return value

    assert traced(-3.0) == -3.0
