"""Private votes: frequencies of draws; the accountant against a plain float64 one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from kdjax.targets import noisy_votes, private_epsilon

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# 250 teachers: all agree, nearly all, a bare majority, a tie, any.
VOTES = np.array(
    [
        *([250, 0, 0, 0], [0, 243, 7, 0], [0, 2, 230, 18], [60, 190, 0, 0]),
        *([126, 124, 0, 0], [125, 125, 0, 0], [60, 70, 60, 60]),
    ]
)


def accountant(votes, scale, delta=1e-5, orders=range(1, 9)):
    """Theorems 2 and 3 and Lemma 4 of arXiv 1610.05755, a number at a time."""
    gamma = 1 / scale
    totals = {order: 0.0 for order in orders}
    for query in votes:
        ranked = sorted((int(n) for n in query), reverse=True)
        q = 0.0
        for other in ranked[1:]:
            gap = gamma * (ranked[0] - other)
            q += (2 + gap) / (4 * math.exp(gap))
        for order in orders:
            cost = min(2 * gamma * order, 2 * gamma**2 * order * (order + 1))
            if q < (math.exp(2 * gamma) - 1) / (math.exp(4 * gamma) - 1):
                ratio = (1 - q) / (1 - math.exp(2 * gamma) * q)
                inside = (1 - q) * ratio**order + q * math.exp(2 * gamma * order)
                cost = min(cost, math.log(inside))
            totals[order] += cost
    return min((totals[order] - math.log(delta)) / order for order in orders)


def test_votes(float64):
    """methods.md, J14: plurality without noise; flips as often as Laplace has it."""
    logits = np.zeros((9, 1, 2))
    logits[:6, :, 0] = logits[6:, :, 1] = 1
    np.testing.assert_array_equal(
        noisy_votes(jax.random.key(0), logits, scale=0.0), [0]
    )
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = np.asarray(jax.vmap(lambda k: noisy_votes(k, logits, scale=2.0))(keys))
    # 6 to 3: P(e_1 - e_0 > 3) for two Laplace variables of scale b.
    b, gap = 2.0, 3.0
    flip = np.exp(-gap / b) * (2 + gap / b) / 4
    assert abs(np.mean(drawn) - flip) < 4 * np.sqrt(flip * (1 - flip) / 20_000)


def test_epsilon_without_votes_in_closed_form():
    """methods.md, J14. 100 queries of scale 20: (0.005 l (l + 1) 100 + log 1e5) / l."""
    expected = min((0.5 * n * (n + 1) + math.log(1e5)) / n for n in range(1, 9))
    np.testing.assert_allclose(private_epsilon(100, scale=20.0), expected, rtol=1e-6)
    np.testing.assert_allclose(expected, 3 + math.log(1e5) / 5)
    # Where there is much noise to save, a query is no more than 2 / scale private.
    found = private_epsilon(3, scale=0.5, delta=0.1, orders=[2.0, 50.0])
    np.testing.assert_allclose(found, 12 + math.log(10) / 50, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.7, 3.0, 20.0, 300.0])
def test_epsilon_against_a_plain_accountant(scale):
    found = jax.jit(private_epsilon)(VOTES, scale=scale)
    assert found.dtype == np.float32 and found.shape == ()
    np.testing.assert_allclose(found, accountant(VOTES, scale), rtol=2e-6)
    orders = [0.5, 3.0, 17.0, 40.0]
    expected = accountant(VOTES, scale, 1e-9, orders)
    found = jax.jit(private_epsilon)(VOTES, scale=scale, delta=1e-9, orders=orders)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.full
def test_epsilon_s_bounds_each_count():
    """Each of the three bounds of a moment is the least somewhere."""
    for votes, scale, order in ((VOTES[:1], 20.0, 4), (VOTES[4:5], 20.0, 4)):
        alone = private_epsilon(1, scale=scale, orders=[order], delta=1.0)
        np.testing.assert_allclose(alone, 0.005 * (order + 1), rtol=1e-6)
        known = private_epsilon(votes, scale=scale, orders=[order], delta=1.0)
        assert (known < 0.01 * alone) == (votes[0, 0] == 250)
    worst = private_epsilon(VOTES[4:5], scale=0.5, orders=[40.0], delta=1.0)
    np.testing.assert_allclose(worst, 4.0, rtol=1e-6)


@pytest.mark.full
def test_epsilon_keeps_the_digits_of_small_moments():
    """float32 against float64, where `log(1 + tiny)` and `exp(-110)` would be lost."""
    for votes, scale in (([[250, 10]], 20.0), ([[110, 0]], 1.0), ([[260, 0]], 2.2)):
        with jax.enable_x64(True):
            exact = private_epsilon(
                np.array(votes), scale=scale, orders=[1.0, 9.0], delta=1.0
            )
            assert exact.dtype == np.float64 and exact > 0
        found = private_epsilon(
            np.array(votes, np.float32), scale=scale, orders=[1.0, 9.0], delta=1.0
        )
        np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-37)
    gamma, q = 1 / 20, (2 + 12) / (4 * math.exp(12))
    # To the first order in q: l q (e^(2g) - 1) + q (e^(2gl) - 1).
    expected = q * (math.expm1(2 * gamma) + math.expm1(2 * gamma))
    found = private_epsilon(jnp.array([[250, 10]]), scale=20.0, orders=[1], delta=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # q = e^-120 of a query whose cost is e^120 in the second term.
    found = private_epsilon(jnp.array([240.0, 0]), scale=2.0, orders=[120], delta=1.0)
    inside = (2 + 120) / 4 * (1 + 120 * math.expm1(1) * math.exp(-120))
    np.testing.assert_allclose(found, math.log1p(inside) / 120, rtol=1e-5)


def test_epsilon_has_no_gradient_to_the_votes():
    slope = jax.grad(lambda v: private_epsilon(v, scale=0.01))(jnp.array([[100.0, 3]]))
    np.testing.assert_array_equal(slope, [[0, 0]])


@pytest.mark.full
def test_epsilon_grows_with_queries_and_falls_with_noise():
    counts = [private_epsilon(n, scale=20.0) for n in (1, 10, 100, 1000)]
    known = [private_epsilon(np.tile(VOTES, (n, 1))) for n in (1, 10, 100)]
    noise = [private_epsilon(100, scale=b) for b in (1e6, 100.0, 20.0, 1.0)]
    for found in (counts, known, noise):
        assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(noise[0], math.log(1e5) / 8, rtol=1e-6)
    small = private_epsilon(100, scale=1e6, orders=np.arange(1.0, 5e4, 50.0))
    assert small < 0.01


@pytest.mark.full
def test_unanimous_votes_cost_far_less():
    agreed, divided = np.tile(VOTES[:1], (1000, 1)), np.tile(VOTES[5:6], (1000, 1))
    orders = np.arange(1, 65, dtype=np.float32)
    cheap, dear = (private_epsilon(v, orders=orders) for v in (agreed, divided))
    assert cheap < 0.1 * dear
    np.testing.assert_allclose(dear, private_epsilon(1000, orders=orders), rtol=1e-5)
    # One class only: no noise elects another.
    one = private_epsilon(np.full((5, 1), 250), delta=1.0)
    np.testing.assert_array_equal(one, 0)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3, 1e12])
@pytest.mark.parametrize("top", [0, 1, 250, 10**7])
def test_epsilon_is_finite_and_at_most_that_of_any_votes(scale, top):
    votes = jnp.array([[top, 0, 0], [top, top, 0]])
    found = private_epsilon(votes, scale=scale)
    assert np.isfinite(found) and found >= 0
    assert found <= private_epsilon(2, scale=scale) * (1 + 1e-6)


@pytest.mark.full
def test_epsilon_of_any_layout_dtype_and_when_traced():
    expected = private_epsilon(VOTES[:6])
    cube = np.moveaxis(VOTES[:6].reshape(2, 3, 4), -1, 1)
    np.testing.assert_allclose(private_epsilon(cube, axis=1), expected, rtol=1e-6)
    for dtype in (jnp.float16, jnp.bfloat16, np.uint8):
        found = private_epsilon(jnp.asarray(VOTES[:3]).astype(dtype))
        assert found.dtype == np.float32
        exact = accountant(np.asarray(jnp.asarray(VOTES[:3]).astype(dtype)), 20.0)
        np.testing.assert_allclose(found, exact, rtol=2e-6)
    for scale in (2.0, 20.0):
        each = jax.vmap(lambda v: private_epsilon(v, scale=scale))  # noqa: B023
        expected = [accountant(v[None], scale) for v in VOTES]
        np.testing.assert_allclose(jax.jit(each)(VOTES), expected, rtol=2e-6)


@pytest.mark.parametrize(
    "name, more",
    [
        ("votes", {"votes": 0}),
        ("votes", {"votes": True}),
        ("votes", {"votes": np.ones(3, bool)}),
        ("votes", {"votes": np.zeros((0, 3))}),
        ("votes", {"votes": np.array(3)}),
        ("votes", {"votes": 2.5}),
        ("votes", {"votes": 10**400}),
        ("votes", {"votes": np.array([[1, -1]])}),
        ("votes", {"votes": np.array([[1.0, np.nan]])}),
        ("axis", {"axis": 2}),
        *(("scale", {"scale": b}) for b in (0.0, -1.0, np.inf)),
        *(("delta", {"delta": d}) for d in (0.0, 1.5, -1e-5)),
        *(("orders", {"orders": x}) for x in (3, [], [0.0, 1.0], [np.inf], (1, "a"))),
    ],
)
def test_refusals_name_the_argument(name, more):
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        private_epsilon(**{"votes": VOTES, **more})


def test_refusals_of_votes_with_noise_and_of_traced_ones():
    with pytest.raises(ValueError, match="^scale: expected"):
        noisy_votes(jax.random.key(0), jnp.ones((2, 1, 3)), scale=-1.0)
    error, _ = jax.jit(checkify.checkify(private_epsilon))(-VOTES)
    with pytest.raises(checkify.JaxRuntimeError, match="^votes: expected finite"):
        error.throw()
