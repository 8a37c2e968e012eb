import numpy as np
import pytest

from kdjax.models.weights.adapt import adapt_stem, resample_positions


def grid_positions(side, tokens=1):
    """Embeddings that are a linear function of the place, behind `tokens` tokens."""
    place = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(place, place, indexing="ij"), -1).reshape(-1, 2)
    front = np.full((tokens, 2), 7.0)
    return np.concatenate([front, grid])[None].astype(np.float32)


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_linear_grid_stays_linear_inside(tokens):
    new = resample_positions(grid_positions(4, tokens), (1, 64 + tokens, 2))
    expected = grid_positions(8, tokens)
    np.testing.assert_array_equal(new[:, :tokens], expected[:, :tokens])
    inside = np.s_[2:-2, 2:-2]
    new, expected = (x[0, tokens:].reshape(8, 8, 2)[inside] for x in (new, expected))
    np.testing.assert_allclose(new, expected, atol=0.02)


@pytest.mark.parametrize(
    "old, new",
    [((1, 6, 2), (1, 17, 2)), ((1, 17, 2), (1, 7, 2)), ((1, 17, 2), (1, 65, 3))],
)
def test_what_is_no_square_grid_of_the_same_width_is_not_resampled(old, new):
    assert resample_positions(np.zeros(old, np.float32), new) is None


def kernel(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_one_channel_sums_three():
    x = kernel((2, 2, 3, 4))
    np.testing.assert_allclose(adapt_stem(x, (2, 2, 1, 4))[:, :, 0], x.sum(2))


@pytest.mark.parametrize("channels", [6, 9])
def test_more_channels_answer_equal_ones_as_before(channels):
    x = kernel((2, 2, 3, 4))
    new = adapt_stem(x, (2, 2, channels, 4))
    np.testing.assert_allclose(new.sum(2), x.sum(2), rtol=1e-5)
    np.testing.assert_allclose(new[:, :, 3], x[:, :, 0] * 3 / channels, rtol=1e-6)


@pytest.mark.parametrize("side", [2, 8])
def test_another_side_answers_a_constant_image_as_before(side):
    x = np.repeat(np.repeat(kernel((2, 2, 3, 4)), 2, 0), 2, 1)
    new = adapt_stem(x, (side, side, 3, 4))
    assert new.shape == (side, side, 3, 4)
    np.testing.assert_allclose(new.sum((0, 1)), x.sum((0, 1)), rtol=1e-4, atol=1e-4)


def test_another_number_of_outputs_is_another_network():
    assert adapt_stem(kernel((2, 2, 3, 4)), (2, 2, 3, 5)) is None
