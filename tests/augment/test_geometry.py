"""Crops against an independent bilinear resampler, and the law of their boxes."""

import jax
import numpy as np
import pytest

from kdjax.augment import geometry
from kdjax.augment.geometry import Crop


def bilinear(image, box, size):
    """Independent float64 reference: half-pixel centers, edges repeated."""
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


def uniform(x, low=0.0, high=1.0):
    """Kolmogorov-Smirnov test of the uniform law; 1.95 / sqrt(n) is p = 0.001."""
    x = (np.sort(x) - low) / (high - low)
    distance = np.abs(x - (np.arange(len(x)) + 0.5) / len(x)).max()
    return distance < 1.95 / np.sqrt(len(x))


def test_crops_have_uniform_aspect_area_and_position_each_by_itself():
    """At areas that fit at every aspect ratio, so that no range is cut."""
    crop = draw(4000, area=(0.1, 0.4), aspect=(0.5, 2.0))
    top, left, h, w = np.asarray(crop.box, np.float64).T
    assert uniform(w / h, 0.5, 2.0) and uniform(h * w, 0.1, 0.4)
    assert uniform(top / (1 - h)) and uniform(left / (1 - w))
    draws = [w / h, h * w, top / (1 - h), left / (1 - w), np.asarray(crop.flip)]
    # 0.016 is one standard deviation of a correlation of 4000 independent pairs.
    np.testing.assert_allclose(np.corrcoef(draws), np.eye(5), atol=0.07)


@pytest.mark.full
def test_each_image_s_own_size_is_as_good_as_one_for_all():
    """The same keys: per-image sizes give the boxes that this size alone would give."""
    sizes = np.array([(8, 8), (20, 30), (400, 100)] * 50, np.int32)
    got = draw(150, image_size=sizes)
    for size in ((8, 8), (20, 30), (400, 100)):
        rows = (sizes == size).all(axis=1)
        want = draw(150, image_size=size)
        np.testing.assert_allclose(got.box[rows], want.box[rows], atol=2e-6)
        np.testing.assert_array_equal(got.flip[rows], want.flip[rows])
    with pytest.raises(ValueError, match=r"image_size: expected shape \(3, 2\)"):
        draw(3, image_size=sizes)


def test_the_central_crop_of_the_paper():
    """160 then 128, by hand: 500x333 becomes 240x160; 56 and 16 are cut off."""
    sizes = np.array([(333, 500), (500, 333), (128, 128)], np.int32)
    crop = geometry.central_crops(sizes, resize=160, crop=128)
    want = [
        [16 / 160, 56 / 240, 128 / 160, 128 / 240],
        [56 / 240, 16 / 160, 128 / 240, 128 / 160],
        [16 / 160, 16 / 160, 128 / 160, 128 / 160],
    ]
    np.testing.assert_allclose(crop.box, want, atol=1e-6)
    assert not crop.flip.any()
    with pytest.raises(ValueError, match="crop: expected 1 to 160 pixels, got 161"):
        geometry.central_crops(sizes, resize=160, crop=161)


@pytest.mark.full
def test_antialias_and_cubic_are_jax_s_resizing_of_the_whole_image():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    whole = geometry.whole_image(2)
    for method in ("linear", "cubic", "lanczos3"):
        got = geometry.apply_crops(images, whole, (4, 4), method, True)
        floats = images.astype(np.float32)
        want = jax.image.resize(floats, (2, 4, 4, 3), method, antialias=True)
        np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=2e-3)
    # Antialiased linear by 3 is the triangle of half-width 3 around each center.
    weight = 1 - np.abs(np.arange(12) - 4.0) / 3
    weight = np.maximum(weight, 0) / np.maximum(weight, 0).sum()
    want = np.einsum("y,x,yxc->c", weight, weight, images[0].astype(np.float64))
    got = geometry.apply_crops(images, whole, (4, 4), "linear", True)
    np.testing.assert_allclose(got[0, 1, 1], want, atol=2e-3)


def test_no_flip_when_told():
    assert not np.asarray(draw(100, flip=False).flip).any()


def test_a_draw_for_another_batch_is_refused():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    with pytest.raises(ValueError, match=r"crop.box: expected \(3, 4\), got \(2, 4\)"):
        geometry.apply_crops(images, draw(2), (8, 8))


def test_normalize_maps_pixels_to_minus_one_and_one():
    got = geometry.normalize(np.array([0, 255], np.uint8))
    np.testing.assert_array_equal(got, np.array([-1.0, 1.0], np.float32))


def test_mild_crops_have_one_size_and_lie_anywhere():
    keys = jax.random.split(jax.random.key(0), 4_000)
    box, flip = geometry.draw_mild_crops(keys, share=0.75, flip=True)
    box = np.asarray(box)
    np.testing.assert_array_equal(box[:, 2:], 0.75)
    for start in (box[:, 0], box[:, 1]):
        # Uniform on [0, 0.25].
        assert start.min() >= 0 and start.max() <= 0.25
        quantiles = np.quantile(start, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quantiles, [0.0625, 0.125, 0.1875], atol=0.01)
    assert abs(np.corrcoef(box[:, 0], box[:, 1])[0, 1]) < 0.05
    assert abs(np.mean(flip) - 0.5) < 0.05
    assert not geometry.draw_mild_crops(keys, share=1.0, flip=False).flip.any()


def test_the_center_cuts_the_same_off_every_side():
    images = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    center = geometry.central_image(1, 0.5)
    got = geometry.apply_crops(images, center, (4, 4))
    np.testing.assert_allclose(got, images[:, 2:6, 2:6])
