"""Losses before the ReLU against fixtures, NumPy formulas and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import ab, ofd, ofd_margins

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")


def _random(shape=(3, 3, 4, 5)):
    return np.random.default_rng(1).normal(size=(2, *shape))


def test_boundary_fixture():
    """methods.md, 3.5, entry by entry."""
    student = np.array([0.5, -2.0, 0.5, 2.0])[:, None]
    teacher = np.array([-1.0, -1.0, 1.0, 1.0])[:, None]
    values = ab(student, teacher)
    np.testing.assert_allclose(values, [2.25, 0, 0.25, 0], rtol=1e-12)
    whole = ab(student.T, teacher.T, variant="mean")
    np.testing.assert_allclose(whole, [0.625], rtol=1e-12)


def test_boundary_counts_zero_as_off():
    zero = np.zeros((1, 1))
    np.testing.assert_allclose(ab(zero, zero), 1)
    np.testing.assert_allclose(ab(zero - 1, zero), 0)


@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_boundary_against_numpy(margin):
    student, teacher = _random()
    expected = np.zeros(3)
    for n in range(3):
        for s, t in zip(student[n].ravel(), teacher[n].ravel(), strict=True):
            if t <= 0 and s > -margin:
                expected[n] += (s + margin) ** 2
            if t > 0 and s <= margin:
                expected[n] += (s - margin) ** 2
    values = ab(student, teacher, margin=margin)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    values = ab(student, teacher, margin=margin, variant="mean")
    np.testing.assert_allclose(values, expected / 60, rtol=1e-10)
    values = ab(student, 9 * teacher, margin=margin)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_boundary_gradients():
    """That of the teacher is 0: only its sign counts."""
    student, teacher = _random((2, 3, 4))
    weights = jnp.arange(1.0, 3)

    def loss(student, teacher):
        return (weights * ab(student, teacher)).sum()

    check_grads(jax.jit(loss), (student, teacher), 1, ("fwd", "rev"), 1e-6, 1e-6)
    np.testing.assert_array_equal(jax.grad(loss, 1)(student, teacher), 0)


def test_margins_are_means_of_the_negative_part():
    """Against samples, and the two limits."""
    scale = np.array([1.0, -2.0, 0.5])
    bias = np.array([0.0, 1.0, -3.0])
    normal = np.random.default_rng(0).normal(size=(1_000_000, 1))
    samples = bias + scale * normal
    expected = [x[x < 0].mean() for x in samples.T]
    margins = ofd_margins(scale, bias)
    np.testing.assert_allclose(margins, expected, rtol=5e-3)
    np.testing.assert_allclose(margins[0], -np.sqrt(2 / np.pi), rtol=1e-12)
    rare = ofd_margins(np.array([0.5, -0.5]), np.array([1.6, 1.6]))
    np.testing.assert_allclose(rare, [-1.5, -1.5], rtol=1e-12)


def test_margins_of_dead_channels():
    zero = np.zeros(2)
    np.testing.assert_array_equal(ofd_margins(zero, np.array([2.0, -2])), [0, -2])
    with np.errstate(all="raise"):
        many = ofd_margins(
            np.array([1e-30, 1e4, 1.0], np.float32),
            np.array([-1e4, 1e4, 1e30], np.float32),
        )
    assert np.isfinite(many).all() and (many <= 0).all()


def test_slopes_of_margins_of_channels_that_nearly_died():
    """Ratios that overflow: -3 sizes above 0, the bias itself below."""
    scale = np.float32([1e-20, -1e-20, 1e-30, 0.0])
    bias = np.float32([1.0, 1e30, -1.0, -2.0])
    slopes = jax.grad(lambda s, b: ofd_margins(s, b).sum(), (0, 1))(scale, bias)
    np.testing.assert_array_equal(slopes[0][:3], [-3, 3, 0])
    np.testing.assert_array_equal(slopes[1], [0, 0, 1, 1])


def test_overhaul_against_numpy():
    student, teacher = _random()
    margin = -np.abs(np.random.default_rng(2).normal(size=5))
    expected = np.zeros(3)
    for n, i, j, c in np.ndindex(student.shape):
        s, t, m = student[n, i, j, c], teacher[n, i, j, c], margin[c]
        if t > 0 or (m < t <= 0 and s > t):
            expected[n] += (s - t) ** 2
        if t <= m and s > m:
            expected[n] += (s - m) ** 2
    values = ofd(student, teacher, margin=margin)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    moved = [np.moveaxis(x, -1, 1) for x in (student, teacher)]
    values = ofd(*moved, margin=margin, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_overhaul_leaves_negative_students_alone():
    teacher = -np.abs(_random()[0])
    values = ofd(teacher - 1, teacher, margin=np.array(-0.1))
    np.testing.assert_array_equal(values, 0)
    values = ofd(teacher, teacher, margin=np.array(-0.1))
    np.testing.assert_array_equal(values, 0)


def test_overhaul_gradients_against_differences():
    student, teacher = _random((2, 3, 4))
    margin = jnp.array([-0.3, -0.5, -1.0, -0.1])
    weights = jnp.arange(1.0, 3)

    def loss(student, teacher, margin):
        return (weights * ofd(student, teacher, margin=margin)).sum()

    arrays = (student, teacher, margin)
    check_grads(jax.jit(loss), arrays, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_bad_arguments_are_refused():
    student, teacher = _random()
    for margin in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match="^margin: expected a finite number"):
            ab(student, teacher, margin=margin)
    with pytest.raises(ValueError, match="^variant: expected one of"):
        ab(student, teacher, variant="total")
    with pytest.raises(ValueError, match=r"^margin: expected shape \(5,\)"):
        ofd(student, teacher, margin=np.ones(4))
    with pytest.raises(ValueError, match="^bias: expected the shape of scale"):
        ofd_margins(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="^scale: expected an array of floating"):
        ofd_margins(np.ones(3, int), np.ones(3))
