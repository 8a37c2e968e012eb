"""Crops against an independent bilinear resampler, and the law of their boxes."""

import jax
import numpy as np
import pytest

from kdjax.augment import geometry
from kdjax.augment.geometry import Crop


def bilinear(image, box, size):
    """Independent float64 reference: half-pixel centres, edges repeated."""
    height, width, _ = image.shape
    top, left, h, w = box * np.array([height, width, height, width])
    out = np.zeros((*size, image.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            y = np.clip(top + (i + 0.5) * h / size[0] - 0.5, 0, height - 1)
            x = np.clip(left + (j + 0.5) * w / size[1] - 0.5, 0, width - 1)
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            a, b = y - y0, x - x0
            out[i, j] = (1 - a) * ((1 - b) * image[y0, x0] + b * image[y0, x1])
            out[i, j] += a * ((1 - b) * image[y1, x0] + b * image[y1, x1])
    return out


def draw(n, **changes):
    options = dict(area=(0.05, 1.0), aspect=(0.75, 4 / 3), flip=True, image_size=(8, 8))
    options.update(changes)
    return geometry.draw_crops(jax.random.split(jax.random.key(0), n), **options)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (16, 12)])
def test_apply_crops_is_bilinear_resampling_of_the_box(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 10, 9, 3), dtype=np.uint8)
    crop = draw(6, image_size=(10, 9), flip=False)
    got = geometry.apply_crops(images, crop, size)
    want = [
        bilinear(x.astype(np.float64), np.asarray(b, np.float64), size)
        for x, b in zip(images, crop.box, strict=True)
    ]
    np.testing.assert_allclose(got, np.stack(want), atol=2e-3)


def test_flip_mirrors_left_to_right():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    box = geometry.whole_image(2).box
    got = geometry.apply_crops(images, Crop(box, np.array([True, False])), (8, 8))
    np.testing.assert_array_equal(got[0], images[0, :, ::-1])
    np.testing.assert_array_equal(got[1], images[1])


def test_whole_image_at_its_own_size_is_the_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 2), dtype=np.uint8)
    got = geometry.apply_crops(images, geometry.whole_image(3), (8, 6))
    np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize(
    "area, aspect, image_size",
    [
        ((0.05, 1.0), (0.75, 4 / 3), (8, 8)),
        ((0.5, 0.6), (1.0, 1.0), (8, 8)),
        ((0.9, 1.0), (0.5, 2.0), (32, 32)),
        ((0.05, 1.0), (0.75, 4 / 3), (20, 30)),
    ],
)
def test_boxes_obey_their_ranges(area, aspect, image_size):
    crop = draw(4000, area=area, aspect=aspect, image_size=image_size)
    top, left, h, w = np.asarray(crop.box, np.float64).T
    height, width = image_size
    tiny = 1e-5
    assert (crop.box >= 0).all()
    assert (top + h <= 1 + tiny).all() and (left + w <= 1 + tiny).all()
    share, ratio = h * w, (w * width) / (h * height)
    assert (share >= area[0] - tiny).all() and (share <= area[1] + tiny).all()
    assert (ratio >= aspect[0] - tiny).all() and (ratio <= aspect[1] + tiny).all()
    # The ranges are used, not only respected.
    reach = min(area[1], min(aspect[1], 1.0) if aspect == (1.0, 1.0) else area[1])
    assert share.max() > area[0] + 0.8 * (reach - area[0])
    assert 0.45 < np.asarray(crop.flip).mean() < 0.55


def test_no_flip_when_told():
    assert not np.asarray(draw(100, flip=False).flip).any()


def test_a_draw_for_another_batch_is_refused():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    with pytest.raises(ValueError, match=r"crop.box: expected \(3, 4\), got \(2, 4\)"):
        geometry.apply_crops(images, draw(2), (8, 8))


def test_normalise_maps_pixels_to_minus_one_and_one():
    got = geometry.normalise(np.array([0, 255], np.uint8))
    np.testing.assert_array_equal(got, np.array([-1.0, 1.0], np.float32))
