"""Each operation of RandAugment against Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kdjax.augment import randaugment
from kdjax.augment.randaugment import NAMES, Operations

GRAY = (127, 127, 127)


@pytest.fixture(scope="module")
def images():
    """One smooth image and one with few values, uint8."""
    y, x = np.mgrid[:24, :32]
    smooth = np.stack([y * 8, x * 6, 255 - y * 4 - x * 3], axis=-1)
    few = np.random.default_rng(0).choice([20, 90, 91, 200], (24, 32, 3))
    return np.stack([smooth, few]).astype(np.uint8)


@pytest.fixture(scope="module")
def apply():
    """One compilation for all tests: an operation and a level for each image."""

    @jax.jit
    def run(pixels, which, level):
        return randaugment.apply_operations(
            pixels.astype(jnp.float32), Operations(which[:, None], level[:, None])
        )

    def named(images, name, level):
        which = np.full(len(images), NAMES.index(name), np.int32)
        return np.asarray(run(images, which, np.full(len(images), level, np.float32)))

    return named


def warped(image, data):
    """Pillow's affine map, whose pixel centers lie at half."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        data,
        Image.Resampling.BILINEAR,
        fillcolor=GRAY,
    )


# What Pillow makes of one image at a level in [-1, 1].
PILLOW = {
    "identity": lambda x, level: x,
    "auto contrast": lambda x, level: ImageOps.autocontrast(x),
    "equalize": lambda x, level: ImageOps.equalize(x),
    "posterize": lambda x, level: ImageOps.posterize(x, 8 - round(4 * abs(level))),
    "solarize": lambda x, level: ImageOps.solarize(x, 255 * (1 - abs(level)) + 1),
    "color": lambda x, level: ImageEnhance.Color(x).enhance(1 + 0.9 * level),
    "contrast": lambda x, level: ImageEnhance.Contrast(x).enhance(1 + 0.9 * level),
    "brightness": lambda x, level: ImageEnhance.Brightness(x).enhance(1 + 0.9 * level),
    "sharpness": lambda x, level: ImageEnhance.Sharpness(x).enhance(1 + 0.9 * level),
    "rotate": lambda x, level: x.rotate(
        -30 * level, Image.Resampling.BILINEAR, fillcolor=GRAY
    ),
    "shear x": lambda x, level: warped(x, (1, 0.3 * level, -0.3 * level * 12, 0, 1, 0)),
    "shear y": lambda x, level: warped(x, (1, 0, 0, 0.3 * level, 1, -0.3 * level * 16)),
    "translate x": lambda x, level: warped(x, (1, 0, 0.45 * level * 32, 0, 1, 0)),
    "translate y": lambda x, level: warped(x, (1, 0, 0, 0, 1, 0.45 * level * 24)),
}


def test_the_14_operations_of_the_paper():
    assert len(NAMES) == 14 and set(NAMES) == set(PILLOW)


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_pillow_s(images, apply, name, level):
    got = apply(images, name, level)
    for found, image in zip(got, images, strict=True):
        want = np.asarray(PILLOW[name](Image.fromarray(image), level), np.float64)
        difference = np.abs(found - want)
        if name in ("rotate", "shear x", "shear y", "translate x", "translate y"):
            # Pillow mixes no gray into pixels at the edge: a line of them may differ.
            assert (difference > 1.5).any(axis=-1).mean() < 0.09
            inner = difference[9:-9, 9:-9] if name == "rotate" else difference
            assert np.median(inner) <= 1.0
        else:
            # Pillow rounds, and rounds the mean gray of contrast.
            assert difference.max() <= 1.51


def test_the_weakest_magnitude_leaves_an_image_as_it_is(images, apply):
    for name in set(NAMES) - {"auto contrast", "equalize"}:
        np.testing.assert_allclose(apply(images, name, 0.0), images, atol=1e-3)


def test_operations_are_done_in_order_and_each_image_has_its_own(images, apply):
    which = np.array(
        [
            [NAMES.index("solarize"), NAMES.index("brightness")],
            [NAMES.index("brightness"), NAMES.index("solarize")],
        ],
        np.int32,
    )
    level = np.full((2, 2), 0.5, np.float32)
    both = np.stack([images[0], images[0]]).astype(np.float32)
    got = jax.jit(randaugment.apply_operations)(both, Operations(which, level))
    for i, names in enumerate((["solarize", "brightness"], ["brightness", "solarize"])):
        want = both[:1]
        for name in names:
            want = apply(want[[0, 0]], name, 0.5)[:1]
        np.testing.assert_allclose(got[i], want[0], atol=1e-3)
    assert np.abs(got[0] - got[1]).max() > 10


def test_gray_images_go_through(apply):
    gray = np.random.default_rng(0).integers(0, 256, (14, 8, 8, 1)).astype(np.float32)
    which = np.arange(14, dtype=np.int32)[:, None]
    level = np.full((14, 1), 0.7, np.float32)
    got = np.asarray(
        jax.jit(randaugment.apply_operations)(gray, Operations(which, level))
    )
    assert got.shape == gray.shape and np.isfinite(got).all()
    assert got.min() >= 0 and got.max() <= 255
    np.testing.assert_allclose(got[NAMES.index("color")], gray[NAMES.index("color")])


def test_every_operation_and_both_signs_are_drawn_equally_often():
    keys = jax.random.split(jax.random.key(0), 7000)
    found = randaugment.draw_operations(keys, 2, 9)
    assert found.which.shape == found.level.shape == (7000, 2)
    counts = np.bincount(np.asarray(found.which).ravel(), minlength=14)
    # Each is binomial around 1000 with standard deviation 30.5.
    assert len(counts) == 14 and np.abs(counts - 1000).max() < 4.5 * 30.5
    levels = np.asarray(found.level)
    np.testing.assert_allclose(np.abs(levels), 0.9, rtol=1e-6)
    assert abs((levels > 0).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(14_000)
    assert (found.which[:, 0] != found.which[:, 1]).mean() > 0.9
