"""Color jitter against Python's own color model and plain formulas."""

import colorsys

import jax
import numpy as np
import pytest

from kdjax.augment import color
from kdjax.augment.color import Jitter


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    found = rng.integers(0, 256, (3, 4, 5, 3)).astype(np.float32)
    found[0, 0, 0] = 0.0
    found[0, 0, 1] = 255.0
    found[0, 0, 2] = 77.0  # gray: no hue
    return found


def jitter(n=3, **changes):
    values = dict(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0) | changes
    return Jitter(**{k: np.full(n, v, np.float32) for k, v in values.items()})


apply = jax.jit(color.apply_jitter)
LUMA = np.array([0.299, 0.587, 0.114])


def test_nothing_drawn_changes_nothing(images):
    np.testing.assert_allclose(apply(images, jitter()), images, atol=1e-3)


def test_brightness_multiplies(images):
    got = apply(images, jitter(brightness=1.5))
    np.testing.assert_allclose(got, np.minimum(images * 1.5, 255), atol=1e-3)


def test_contrast_moves_away_from_the_mean_gray_of_each_image(images):
    mean = (images.astype(np.float64) @ LUMA).mean(axis=(1, 2))[:, None, None, None]
    want = np.clip(mean + 1.4 * (images - mean), 0, 255)
    np.testing.assert_allclose(apply(images, jitter(contrast=1.4)), want, atol=1e-3)


def test_saturation_moves_away_from_the_gray_of_each_pixel(images):
    gray = (images.astype(np.float64) @ LUMA)[..., None]
    want = np.clip(gray + 0.3 * (images - gray), 0, 255)
    np.testing.assert_allclose(apply(images, jitter(saturation=0.3)), want, atol=1e-3)


@pytest.mark.parametrize("turn", [-0.4, 0.1, 1 / 3, 0.5])
def test_hue_is_turned_as_in_hsv(images, turn):
    got = np.asarray(apply(images, jitter(hue=turn)))
    for pixel, found in zip(images.reshape(-1, 3), got.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(float(x) / 255 for x in pixel))
        want = np.array(colorsys.hsv_to_rgb((h + np.float32(turn)) % 1.0, s, v)) * 255
        np.testing.assert_allclose(found, want, atol=2e-3)


def test_gray_images_have_brightness_and_contrast_only(images):
    gray = images[..., :1]
    got = apply(gray, jitter(saturation=0.0, hue=0.3))
    np.testing.assert_allclose(got, gray, atol=1e-3)
    mean = gray.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    got = apply(gray, jitter(contrast=0.5))
    np.testing.assert_allclose(got, mean + 0.5 * (gray - mean), atol=1e-3)


def test_draws_are_uniform_in_their_ranges():
    keys = jax.random.split(jax.random.key(0), 4000)
    found = color.draw_jitter(keys, (0.4, 0.3, 0.2, 0.1))
    for values, middle, reach in zip(
        found, (1, 1, 1, 0), (0.4, 0.3, 0.2, 0.1), strict=True
    ):
        u = np.sort((np.asarray(values, np.float64) - middle) / (2 * reach) + 0.5)
        # Kolmogorov-Smirnov distance to the uniform law; 1.95 / sqrt(n) is p = 0.001.
        distance = np.abs(u - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 1.95 / np.sqrt(4000)
    strengths = np.corrcoef(np.stack(found))
    assert np.abs(strengths - np.eye(4)).max() < 0.07
