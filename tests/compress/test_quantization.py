"""Quantizers: properties of methods.md (F01, F02, F07), NumPy, slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.compress import quantization as q

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(7, 5)) * np.array([1e-3, 0.1, 1, 3, 40])


def slope(function, *arguments):
    weights = np.arange(1.0, 1 + arguments[0].size).reshape(arguments[0].shape)

    def loss(*arguments):
        values = function(*arguments)
        return (jnp.asarray(weights, values.dtype) * values).sum()

    return weights, jax.jit(jax.grad(loss, tuple(range(len(arguments)))))(*arguments)


def integers(x, low, high, levels, symmetric):
    """Integers, scale and zero point, by the definition."""
    if symmetric:
        n = (levels - 1) // 2
        scale = np.maximum(-low, high) / n
        return np.clip(np.round(x / scale), -n, n), scale, 0
    scale = (high - low) / (levels - 1)
    zero = np.round(-low / scale)
    return np.clip(np.round(x / scale) + zero, 0, levels - 1), scale, zero


@pytest.mark.parametrize("levels", [4, 16, 256])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_affine_against_numpy(axis, symmetric, levels):
    """F07: an int8 round trip, idempotent, 0 exact, 1 inside and 0 outside."""
    low, high = (0.8 * np.asarray(x) for x in q.calibrated_range(X, axis=axis))
    knobs = {"low": low, "high": high, "levels": levels, "symmetric": symmetric}
    found = np.asarray(q.affine_quantize(X, **knobs))
    whole, scale, zero = integers(X, low, high, levels, symmetric)
    assert np.array_equal(whole, whole.astype(np.int32)) and np.ptp(whole) < levels
    expected = scale * (whole - zero)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(q.affine_quantize(found, **knobs), found)
    np.testing.assert_array_equal(q.affine_quantize(0 * X, **knobs), 0 * X)
    ends = -scale * zero, scale * (levels - 1 - zero)
    if symmetric:
        ends = (-scale * ((levels - 1) // 2), scale * ((levels - 1) // 2))
    inside = (ends[0] <= X) & (ends[1] >= X)
    assert 0 < inside.sum() < X.size
    error = np.abs(found - X)
    assert (error <= scale / 2 * (1 + 1e-9))[inside].all()
    weights, (gradient,) = slope(lambda x: q.affine_quantize(x, **knobs), X)
    np.testing.assert_allclose(gradient, weights * inside, rtol=1e-12)


def test_learned_range_has_the_gradient_of_learned_steps():
    """LSQ: `round(v) - v` within, the end's sign outside, per unit of step."""
    high, n = 1.5, 7
    weights, (_, found) = slope(
        lambda x, high: q.affine_quantize(
            x, low=-high, high=high, levels=16, symmetric=True
        ),
        X,
        np.float64(high),
    )
    v = X / (high / n)
    inside = np.round(v) - v
    expected = np.where(np.abs(v) <= n, inside, n * np.sign(v)) / n
    np.testing.assert_allclose(found, (weights * expected).sum(), rtol=1e-9)


def test_two_bits_have_four_levels_and_nothing_gives_nothing():
    wide = np.linspace(-3, 3, 601)
    knobs = {"low": -1.0, "high": 2.0}
    for levels, symmetric, count in ((4, False, 4), (4, True, 3), (256, True, 255)):
        out = q.affine_quantize(wide, **knobs, levels=levels, symmetric=symmetric)
        assert len(np.unique(out)) == count
    low = np.array([-1.0, -2, -3, -4, -5])
    each = q.affine_quantize(X, low=low, high=2.0, levels=16)
    for i in range(5):
        alone = q.affine_quantize(X[:, i], low=low[i], high=2.0, levels=16)
        np.testing.assert_array_equal(each[:, i], alone)
    empty, (gradient,) = slope(lambda x: q.affine_quantize(x, low=0.0, high=0.0), X)
    np.testing.assert_array_equal(q.affine_quantize(X, low=0.0, high=0.0), 0 * X)
    assert np.isfinite(gradient).all() and np.isfinite(empty).all()


def test_ranges_hold_the_quantiles_and_zero():
    low, high = q.calibrated_range(X, axis=1, coverage=0.6)
    for got, share in ((low, 0.2), (high, 0.8)):
        end = np.quantile(X, share, axis=0, keepdims=True)
        end = np.minimum(end, 0) if share < 0.5 else np.maximum(end, 0)
        np.testing.assert_allclose(got, end, rtol=1e-12)
    low, high = q.calibrated_range(3 + np.abs(X))
    np.testing.assert_array_equal(low, [[0]])
    np.testing.assert_array_equal(high, [[3 + np.abs(X).max()]])


@pytest.mark.parametrize("axis", [None, 0])
def test_signs_and_three_values_against_numpy(axis):
    over = None if axis is None else 1
    size = np.abs(X).mean(over, keepdims=True)
    weights, (gradient,) = slope(lambda x: q.binary_quantize(x, axis=axis), X)
    np.testing.assert_allclose(q.binary_quantize(X, axis=axis), np.sign(X) * size)
    np.testing.assert_array_equal(gradient, weights)
    keep = np.abs(X) > 0.7 * size
    mean = np.where(keep, np.abs(X), 0).sum(over, keepdims=True)
    mean = mean / keep.sum(over, keepdims=True)
    weights, (gradient,) = slope(lambda x: q.ternary_quantize(x, axis=axis), X)
    expected = np.where(keep, np.sign(X) * mean, 0)
    np.testing.assert_allclose(q.ternary_quantize(X, axis=axis), expected)
    np.testing.assert_array_equal(gradient, weights)
    np.testing.assert_array_equal(q.ternary_quantize(np.zeros(3)), np.zeros(3))


def buckets(x, size):
    """The values of each bucket of a flattened array, the last one shorter."""
    flat = x.ravel()
    return [flat[i : i + size] for i in range(0, flat.size, size)]


@pytest.mark.parametrize("size", [4, 35, 256])
def test_buckets_against_numpy(size):
    """F01: evenly spaced between each bucket's ends; 32 bits are nearly the values."""
    parts = []
    for part in buckets(X, size):
        low, span = part.min(), np.ptp(part)
        parts.append(low + span * np.round((part - low) / span * 3) / 3)
    expected = np.concatenate(parts).reshape(X.shape)
    found = q.bucket_quantize(X, levels=4, bucket=size)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    weights, (gradient,) = slope(
        lambda x: q.bucket_quantize(x, levels=4, bucket=size), X
    )
    np.testing.assert_array_equal(gradient, weights)
    fine = q.bucket_quantize(X, levels=2**32, bucket=size)
    np.testing.assert_allclose(fine, X, atol=1e-7)
    flat = np.full((3,), 0.25)
    np.testing.assert_array_equal(q.bucket_quantize(flat, levels=2), flat)


def test_rounding_by_chance_is_right_on_average():
    keys = jax.random.split(jax.random.key(0), 4_000)
    x = np.array([0.0, 0.1, 0.45, 0.8, 1.0])
    drawn = jax.vmap(lambda k: q.bucket_quantize(x, levels=3, key=k))(keys)
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}
    # Four standard errors of a draw between neighbors half a unit apart.
    np.testing.assert_allclose(drawn.mean(0), x, atol=4 * 0.25 / np.sqrt(4_000))


def test_points_of_a_code_book():
    """F02: the points' gradient is a sum over their values, by differences too."""
    points = np.array([0.0, 0.2, 0.7, 1.0])

    def book(x, points):
        return q.codebook_quantize(x, points, bucket=8)

    expected, owner, spans = [], [], []
    for part in buckets(X, 8):
        low, span = part.min(), np.ptp(part)
        nearest = np.abs((part - low)[:, None] / span - points).argmin(1)
        expected.append(low + span * points[nearest])
        owner.append(nearest)
        spans.append(np.full(part.shape, span))
    found = np.asarray(book(X, points))
    np.testing.assert_allclose(found.ravel(), np.concatenate(expected), rtol=1e-12)
    weights, (held, gradient) = slope(book, X, points)
    moved = np.bincount(
        np.concatenate(owner), weights.ravel() * np.concatenate(spans), 4
    )
    np.testing.assert_allclose(gradient, moved, rtol=1e-12)
    np.testing.assert_array_equal(held, 0 * X)
    for i in range(4):
        step = 1e-7 * np.eye(4)[i]
        gap = ((book(X, points + step) - book(X, points - step)) * weights).sum()
        np.testing.assert_allclose(gradient[i], gap / 2e-7, rtol=1e-5)


def test_points_start_at_quantiles():
    uniform = np.linspace(-3, 5, 4_001)
    found = q.codebook_points(uniform, levels=5)
    np.testing.assert_allclose(found, np.linspace(0, 1, 5), atol=1e-12)
    share = np.concatenate(
        [(part - part.min()) / np.ptp(part) for part in buckets(X, 7)]
    )
    found = q.codebook_points(X, levels=4, bucket=7)
    np.testing.assert_allclose(found, np.quantile(share, np.linspace(0, 1, 4)))


def test_the_range_of_a_scalar_fits_it():
    for x, axis in ((np.float64(0.3), None), (np.array([0.3, -0.2]), 0)):
        low, high = q.calibrated_range(x, axis=axis)
        np.testing.assert_array_equal(low, np.minimum(x, 0))
        np.testing.assert_array_equal(high, np.maximum(x, 0))
        np.testing.assert_allclose(q.affine_quantize(x, low=low, high=high), x)


@pytest.mark.parametrize("size", [1e-12, 1e-17, 1e-30])
def test_ranges_of_channels_that_have_decayed_can_be_learned(size):
    """Slopes have no unit, so those of a small range are those of a large one."""
    x = np.float32(np.linspace(-1, 1, 9))

    def learned(x, low, high):
        return q.affine_quantize(x, low=low, high=high)

    ends = np.float32(-0.7), np.float32(0.4)
    _, expected = slope(learned, x, *ends)
    _, found = slope(learned, *(np.float32(size) * a for a in (x, *ends)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)


QUANTIZERS = {
    "affine": lambda x: q.affine_quantize(x, low=-1.0, high=2.0),
    "binary": q.binary_quantize,
    "ternary": q.ternary_quantize,
    "bucket": lambda x: q.bucket_quantize(x, levels=4, bucket=3),
    "codebook": lambda x: q.codebook_quantize(x, q.codebook_points(x, levels=4)),
}


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("quantize", QUANTIZERS.values(), ids=QUANTIZERS)
def test_half_precision_and_extremes(quantize, dtype):
    for x in (
        np.zeros(5),
        np.full(5, 1e4),
        np.array([-1e4, 1e4, 0, 1e-6, 1]),
        np.full(1, 3.0),
    ):
        x = jnp.asarray(x, dtype)
        weights, (gradient,) = slope(quantize, x)
        values = quantize(x)
        assert values.dtype == jnp.float32 and gradient.dtype == dtype
        assert np.isfinite(values).all() and np.isfinite(gradient).all()
        mapped = jax.vmap(quantize)(jnp.stack([x, x]))
        np.testing.assert_allclose(mapped[1], values, rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: q.affine_quantize(X, low=0.5, high=1.0),
            "low: expected finite numbers not",
        ),
        (
            lambda: q.affine_quantize(X, low=0.0, high=-1.0),
            "high: expected finite numbers",
        ),
        (
            lambda: q.affine_quantize(X, low=-np.ones(3), high=1.0),
            r"low: expected a shape that broadcasts to \(7, 5\)",
        ),
        (
            lambda: q.affine_quantize(X, low=-1, high=1.0),
            "low: expected an array of floating",
        ),
        (
            lambda: q.affine_quantize(X, low=-1.0, high=1.0, levels=2, symmetric=True),
            "levels: expected a whole number of at least 3",
        ),
        (lambda: q.affine_quantize(X, low=None, high=1.0), "low: expected a scalar"),
        (lambda: q.affine_quantize(X, low=0.0, high=np.inf), "high: expected finite"),
        (lambda: q.calibrated_range(X, axis=2), "axis: expected an axis of x"),
        (lambda: q.calibrated_range(X, axis=True), "axis: expected an integer axis"),
        (lambda: q.calibrated_range(X, coverage=1.5), r"coverage: .* in \(0.0, 1.0\]"),
        (lambda: q.ternary_quantize(X, threshold=True), "threshold: expected"),
        (lambda: q.calibrated_range(X, coverage=0.0), "coverage: expected"),
        (lambda: q.calibrated_range(X[:0]), "x: expected"),
        (lambda: q.binary_quantize(np.arange(3)), "x: expected an array of floating"),
        (lambda: q.ternary_quantize(X, threshold=-1.0), "threshold: expected"),
        (lambda: q.bucket_quantize(X, levels=1), "levels: expected"),
        (lambda: q.bucket_quantize(X, levels=4, bucket=0), "bucket: expected"),
        (lambda: q.codebook_points(X, levels=2.5), "levels: expected"),
        (lambda: q.codebook_quantize(X, X), "points: expected"),
        (lambda: q.codebook_quantize(X, X[0, :0]), "points: expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
