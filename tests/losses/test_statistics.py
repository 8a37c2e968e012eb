"""Gaussian losses against fixtures, NumPy formulas and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.losses import batch_norm_statistics, vid, vid_log_variance

pytestmark = pytest.mark.usefixtures("float64", "strict_dtypes")


def _random(shape=(3, 2, 4, 5)):
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(2, *shape))
    return student, teacher, rng.normal(size=shape[-1])


def _variance(raw, eps=1e-5):
    return np.log1p(np.exp(raw)) + eps


def test_information_fixture():
    raw = vid_log_variance()
    assert abs(raw - 4.9932291827) < 1e-9
    zero, raw = np.zeros((1, 2, 3)), np.full(3, raw)
    value = vid(zero, zero, log_variance=raw)
    np.testing.assert_allclose(value, 0.8047189562, atol=1e-9)
    value = vid(zero, zero + 1, log_variance=raw)
    np.testing.assert_allclose(value, 0.9047189562, atol=1e-9)


@pytest.mark.parametrize("variance", [1e-3, 1.0, 50.0, 1e4])
def test_initial_variance_is_what_comes_out(variance):
    raw = np.array(vid_log_variance(variance, eps=1e-4))
    zero = np.zeros((1, 1))
    value = vid(zero, zero, log_variance=raw, eps=1e-4)
    np.testing.assert_allclose(value, np.log(variance) / 2, rtol=1e-9, atol=1e-12)


def test_information_against_numpy():
    student, teacher, raw = _random()
    variance = _variance(raw)
    terms = ((teacher - student) ** 2 / variance + np.log(variance)) / 2
    values = vid(student, teacher, log_variance=raw)
    np.testing.assert_allclose(values, terms.mean(axis=(1, 2, 3)), rtol=1e-10)
    moved = [np.moveaxis(x, -1, 1) for x in (student, teacher)]
    values = vid(*moved, log_variance=raw, axis=1)
    np.testing.assert_allclose(values, terms.mean(axis=(1, 2, 3)), rtol=1e-10)
    shift = np.arange(5.0)
    values = vid(student + shift, teacher + shift, log_variance=raw, where=shift > 1)
    expected = terms[..., 2:].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_the_best_variance_is_the_squared_residual():
    zero = np.zeros((1, 4, 1))

    def slope(variance, residual=1.5):
        def loss(raw):
            return vid(zero, zero + residual, log_variance=raw).sum()

        return jax.grad(loss)(np.array([vid_log_variance(variance)]))[0]

    assert abs(slope(2.25)) < 1e-10
    assert slope(2.0) < -1e-3 and slope(2.5) > 1e-3


def test_information_is_finite_at_both_ends_of_the_softplus():
    student, teacher, _ = (x.astype(np.float32) for x in _random())
    for level in (-1e4, 1e4):
        raw = np.full(5, level, np.float32)

        def loss(*arrays):
            return vid(arrays[0], arrays[1], log_variance=arrays[2]).sum()

        value, gradients = jax.value_and_grad(loss, (0, 1, 2))(student, teacher, raw)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


def test_information_does_not_see_the_variance_of_a_channel_left_out():
    student, teacher, raw = _random()
    keep = np.arange(5) != 1
    expected = vid(student, teacher, log_variance=raw, where=keep)
    raw[1] = np.nan

    def loss(raw):
        values = vid(student, teacher, log_variance=raw, where=keep)
        return values.sum(), values

    gradient, values = jax.grad(loss, has_aux=True)(raw)
    np.testing.assert_array_equal(values, expected)
    assert gradient[1] == 0 and (gradient[keep] != 0).all()


def test_information_gradients_against_differences():
    student, teacher, raw = _random((2, 3, 4))
    weights = jnp.arange(1.0, 3)

    def loss(student, teacher, raw):
        values = vid(student, teacher, log_variance=raw)
        return (weights * values).sum()

    arrays = (student, teacher, raw)
    check_grads(jax.jit(loss), arrays, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_statistics_fixture():
    """methods.md, 3.5: KL(N(0, 1) || N(1, 4))."""
    features = np.array([[-1.0], [3.0]])
    mean, variance = np.array([0.0]), np.array([1.0])
    stored = {"mean": mean, "variance": variance}
    values = batch_norm_statistics(features, **stored, variant="kl")
    np.testing.assert_allclose(values, 0.4431471806, atol=1e-9)
    np.testing.assert_allclose(batch_norm_statistics(features, **stored), 4)


@pytest.mark.parametrize("axis", [1, -1])
def test_statistics_against_numpy(axis):
    features = _random()[0]
    channels = features.shape[axis]
    rng = np.random.default_rng(2)
    mean, variance = rng.normal(size=channels), rng.uniform(0.5, 2, size=channels)
    rows = np.moveaxis(features, axis, -1).reshape(-1, channels)
    found, spread = rows.mean(axis=0), rows.var(axis=0)
    gaps = found - mean, spread - variance
    expected = sum(np.sqrt((gap**2).sum()) for gap in gaps)
    stored = {"mean": mean, "variance": variance, "axis": axis}
    values = batch_norm_statistics(features, **stored)
    np.testing.assert_allclose(values, [expected] * 3, rtol=1e-10)
    expected = np.log(np.sqrt(spread / variance))
    expected += (variance + gaps[0] ** 2) / (2 * spread) - 0.5
    values = batch_norm_statistics(features, **stored, variant="kl")
    np.testing.assert_allclose(values, [expected.sum()] * 3, rtol=1e-10)


@pytest.mark.parametrize("variant", ["l2", "kl"])
def test_statistics_that_agree_cost_nothing(variant):
    features = _random()[0]
    rows = features.reshape(-1, 5)
    stored = {"mean": rows.mean(axis=0), "variance": rows.var(axis=0)}

    def loss(features):
        return batch_norm_statistics(features, **stored, variant=variant).mean()

    value, gradient = jax.value_and_grad(loss)(features)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    assert np.isfinite(gradient).all()
    if variant == "kl":
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize("variant", ["l2", "kl"])
def test_statistics_mask_selects_examples(variant):
    features = _random()[0]
    stored = {"mean": np.zeros(5), "variance": np.ones(5), "variant": variant}
    keep = np.array([True, False, True])
    expected = batch_norm_statistics(features[keep], **stored)
    features[1] = np.nan

    def loss(features, where):
        values = batch_norm_statistics(features, **stored, where=where)
        return values.mean(), values

    gradient, values = jax.grad(loss, has_aux=True)(features, keep)
    np.testing.assert_allclose(values[keep], expected, rtol=1e-12)
    assert values[1] == 0 and (gradient[1] == 0).all()
    gradient, values = jax.grad(loss, has_aux=True)(features, ~keep & False)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("variant", ["l2", "kl"])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_statistics_are_finite(variant, scale):
    """A batch without spread, alone or constant, and stored variances of 0."""
    features = (scale * _random()[0]).astype(np.float32)
    for batch in (features, features[:1, :1, :1], 0 * features + np.float32(scale)):
        for variance in (0.0, 1.0):
            stored = np.zeros(5, np.float32), np.full(5, variance, np.float32)

            def loss(x, stored=stored):
                return batch_norm_statistics(
                    x, mean=stored[0], variance=stored[1], variant=variant
                ).mean()

            value, gradient = jax.value_and_grad(loss)(batch)
            assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.full
@pytest.mark.parametrize("variant", ["l2", "kl"])
def test_statistics_gradients_against_differences(variant):
    features = _random((3, 2, 4))[0]
    mean, variance = np.full(4, 0.2), np.full(4, 1.5)
    weights = jnp.arange(1.0, 4)

    def loss(features, mean, variance):
        stored = {"mean": mean, "variance": variance, "variant": variant}
        return (weights * batch_norm_statistics(features, **stored)).sum()

    arrays = (features, mean, variance)
    check_grads(jax.jit(loss), arrays, 1, ("fwd", "rev"), 1e-6, 1e-6)


def test_statistics_mean_the_global_batch():
    features = _random((8, 2, 4))[0]
    stored = {"mean": np.zeros(4), "variance": np.ones(4)}
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = batch_norm_statistics(features, **stored)
    kernel = jax.jit(lambda x: batch_norm_statistics(x, **stored))
    np.testing.assert_allclose(kernel(jax.device_put(features, rows)), whole)
    assert not np.allclose(whole[:4], batch_norm_statistics(features[:4], **stored))


def test_bad_arguments_are_refused():
    student, teacher, raw = _random()
    with pytest.raises(ValueError, match=r"^log_variance: expected shape \(5,\)"):
        vid(student, teacher, log_variance=raw[:4])
    with pytest.raises(ValueError, match="^eps: expected .* above 0"):
        vid(student, teacher, log_variance=raw, eps=0)
    with pytest.raises(ValueError, match="^variance - eps: expected"):
        vid_log_variance(1e-6)
    stored = {"mean": raw, "variance": raw**2}
    with pytest.raises(ValueError, match="^variant: expected one of"):
        batch_norm_statistics(student, **stored, variant="js")
    with pytest.raises(ValueError, match=r"^mean: expected shape \(4,\)"):
        batch_norm_statistics(student, **stored, axis=2)
    with pytest.raises(ValueError, match="^axis: expected the axis of the channels"):
        batch_norm_statistics(student, **stored, axis=0)
    with pytest.raises(ValueError, match="^features: expected at least one entry"):
        batch_norm_statistics(student[:0], **stored)
    with pytest.raises(ValueError, match=r"^where: expected .*\(3,\)"):
        batch_norm_statistics(student, **stored, where=np.ones((3, 5), bool))
