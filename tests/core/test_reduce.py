"""Masked sums and means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.core.reduce import masked_mean, masked_sum

pytestmark = pytest.mark.usefixtures("strict_dtypes")
REDUCERS = pytest.mark.parametrize("reduce", [masked_sum, masked_mean])
VALUES = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), range(1, 3)])
def test_without_a_mask_they_are_the_plain_ones(axis):
    plain = tuple(axis) if isinstance(axis, range) else axis
    total, mean = masked_sum(VALUES, axis), masked_mean(VALUES, axis)
    np.testing.assert_allclose(total, VALUES.sum(plain), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, VALUES.mean(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0, (0, 2)])
def test_with_a_mask_they_are_numpy_s(axis):
    mask = np.random.default_rng(1).random((4, 5)) < 0.7
    full = np.broadcast_to(mask, VALUES.shape)
    total, mean = masked_sum(VALUES, axis, mask), masked_mean(VALUES, axis, mask)
    expected = VALUES.sum(axis, where=full)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-6)
    counted = full.sum(axis)
    np.testing.assert_allclose(
        mean, np.where(counted == 0, 0, expected / np.maximum(counted, 1)), rtol=1e-5
    )


@REDUCERS
def test_an_empty_selection_is_zero_with_gradient_zero(reduce):
    mask = np.array([[True], [False], [True]])[..., None]
    values, gradient = jax.value_and_grad(lambda x: reduce(x, where=mask & False))(
        VALUES
    )
    assert values == 0
    np.testing.assert_array_equal(gradient, 0)
    by_row = np.asarray(reduce(VALUES, (1, 2), mask))
    assert by_row[1] == 0 and (by_row[[0, 2]] != 0).all()
    assert reduce(np.zeros(0, np.float32)) == 0


@REDUCERS
def test_nan_is_hidden_by_the_mask_and_by_nothing_else(reduce):
    bad = VALUES.copy()
    bad[1, 2, 3] = np.nan
    keep = ~np.isnan(bad)
    value, gradient = jax.value_and_grad(lambda x: reduce(x, where=keep))(bad)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert gradient[1, 2, 3] == 0
    assert np.isnan(reduce(bad))
    assert np.isnan(reduce(bad, where=np.roll(keep, 1)))


@REDUCERS
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_summed_in_float32(reduce, dtype):
    ones = jnp.ones(4097, dtype)
    total = reduce(ones)
    assert total.dtype == jnp.float32
    assert total == (4097 if reduce is masked_sum else 1)


@REDUCERS
def test_float64_stays(reduce, float64):
    mask = np.arange(5) > 2
    assert reduce(VALUES.astype(np.float64), where=mask).dtype == jnp.float64


@REDUCERS
def test_bad_masks_are_refused(reduce):
    with pytest.raises(ValueError, match="^where: expected .*bool"):
        reduce(VALUES, where=np.ones(5))
    with pytest.raises(ValueError, match="^where: expected a shape"):
        reduce(VALUES, where=np.ones((2, 3, 4, 5), bool))
