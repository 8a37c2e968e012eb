"""Decoding, resizing and cutting on the host, against PIL-free formulas."""

import io
import os
import struct
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from kdjax.data import images


def encoded(pixels, mode=None, form="PNG"):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, format=form)
    return buffer.getvalue()


@pytest.fixture
def color():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_a_png_comes_back_byte_for_byte(color):
    np.testing.assert_array_equal(images.decode(encoded(color), 3, "x"), color)
    np.testing.assert_array_equal(images.decode(encoded(color), 0, "x"), color)


def test_gray_and_color_become_what_is_asked_for(color):
    gray = color[:, :, 0]
    got = images.decode(encoded(gray), 3, "x")
    np.testing.assert_array_equal(got, np.repeat(gray[:, :, None], 3, axis=2))
    assert images.decode(encoded(gray), 0, "x").shape == (5, 7, 1)
    luma = color.astype(np.float64) @ [0.299, 0.587, 0.114]
    got = images.decode(encoded(color), 1, "x")[:, :, 0]
    np.testing.assert_allclose(got, luma, atol=0.51)


def test_what_is_transparent_lies_on_white(color):
    alpha = np.array([0, 51, 255], np.uint8)[np.arange(7) % 3]
    rgba = np.dstack([color, np.broadcast_to(alpha, (5, 7))])
    share = alpha[None, :, None] / 255.0
    want = share * color + (1 - share) * 255
    got = images.decode(encoded(rgba), 3, "x")
    np.testing.assert_allclose(got, want, atol=1.01)
    assert (got[:, 0] == 255).all()
    np.testing.assert_array_equal(got[:, 2], color[:, 2])


def test_palettes_and_cmyk_become_rgb(color):
    assert images.decode(encoded(color, "P"), 0, "x").shape == (5, 7, 3)
    assert images.decode(encoded(color, "CMYK", "JPEG"), 0, "x").shape == (5, 7, 3)


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    )


@pytest.mark.parametrize("kind, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_refused_in_gray_and_color(kind, channels):
    """PNG by its specification; Pillow would keep the upper 8 bits of color."""
    pixels = np.arange(4 * 5 * channels, dtype=">u2").reshape(4, -1) * 800
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 5, 4, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows))
    file = b"".join([b"\x89PNG\r\n\x1a\n", *parts, chunk(b"IEND", b"")])
    with pytest.raises(images.ImageError, match="x.png: expected 8 bits .* got 16$"):
        images.decode(file, 3, "x.png")


@pytest.mark.parametrize("kind, channels", [(5, 1), (6, 3)])
@pytest.mark.parametrize("largest", [65535, 4095])
def test_ppm_of_more_than_8_bits_is_refused(kind, channels, largest):
    pixels = np.arange(4 * channels, dtype=">u2").tobytes()
    file = f"P{kind}\n2 2\n{largest}\n".encode() + pixels
    with pytest.raises(images.ImageError, match="x.ppm: expected 8 bits .* got 16$"):
        images.decode(file, 3, "x.ppm")


@pytest.mark.parametrize("largest", [255, 100])
def test_ppm_of_8_bits_is_scaled_to_its_largest_value(largest):
    pixels = np.array([[[largest, 0, 50], [25, largest, 0]]], np.uint8)
    file = f"P6\n2 1\n{largest}\n".encode() + pixels.tobytes()
    expected = np.round(pixels * (255 / largest))
    np.testing.assert_allclose(images.decode(file, 3, "x"), expected, atol=1)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_refused_and_one_frame_is_not(form):
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    one, two = io.BytesIO(), io.BytesIO()
    red.save(one, form)
    red.save(two, form, save_all=True, append_images=[blue])
    assert images.decode(one.getvalue(), 3, "x").shape == (4, 4, 3)
    with pytest.raises(images.ImageError, match="x: expected one image, got 2 frames"):
        images.decode(two.getvalue(), 3, "x")


def test_the_main_picture_of_a_camera_s_pair_is_read(color):
    first, second = Image.fromarray(color), Image.fromarray(255 - color)
    pair = io.BytesIO()
    first.save(pair, "MPO", save_all=True, append_images=[second], quality=100)
    got = images.decode(pair.getvalue(), 3, "x").astype(int)
    assert np.abs(got - color).mean() < np.abs(got - (255 - color)).mean()


def test_a_palette_with_transparency_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putdata([0, 1])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    got = images.decode(file.getvalue(), 3, "x")
    np.testing.assert_array_equal(got, [[[255, 255, 255], [0, 0, 200]]])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no image", "cat.jpg: cannot be decoded: UnidentifiedImageError"),
        (b"", "cat.jpg: cannot be decoded"),
        ("cut off", "cat.jpg: cannot be decoded: OSError: .*truncated"),
        ("sixteen", "cat.jpg: expected 8 bits a channel, got 16"),
    ],
)
def test_unusable_images_are_named(content, message):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = {
        "cut off": encoded(noise, form="JPEG")[:2000],
        "sixteen": encoded(np.arange(12, dtype=np.uint16).reshape(3, 4)),
    }
    with pytest.raises(images.ImageError, match=message):
        images.decode(made.get(content, content), 3, "cat.jpg")


def test_resizing_to_half_averages_a_ramp_to_itself():
    ramp = np.broadcast_to(
        np.arange(0, 64, 2, dtype=np.uint8)[:, None, None], (32, 8, 3)
    )
    got = images.resize(np.ascontiguousarray(ramp), 16, 4)
    want = np.arange(16) * 4 + 1.0  # the mean of rows 2i and 2i + 1
    np.testing.assert_allclose(got[1:-1, 0, 0], want[1:-1], atol=1)
    same = np.ascontiguousarray(ramp)
    assert images.resize(same, 32, 8) is same


def test_the_central_view_of_whole_factors_is_the_mean_of_areas():
    """60x80 to a smaller side of 30, then its central 24."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 1), dtype=np.uint8)
    blocks = pixels[:, :, 0].reshape(30, 2, 40, 2).mean(axis=(1, 3))
    got = images.crop_center(pixels, resize_to=30, crop=24)
    assert got.shape == (24, 24, 1)
    np.testing.assert_allclose(got[:, :, 0], blocks[3:27, 8:32], atol=1.01)


def test_cutting_out_whole_pixels_keeps_them(color):
    box = np.array([1 / 5, 2 / 7, 3 / 5, 4 / 7], np.float32)
    got = images.crop_and_resize(color, box, False, 3, 4)
    np.testing.assert_array_equal(got, color[1:4, 2:6])
    got = images.crop_and_resize(color, box, True, 3, 4)
    np.testing.assert_array_equal(got, color[1:4, 2:6][:, ::-1])


@pytest.mark.full
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos3"])
def test_cutting_is_jax_s_resampling_to_a_rounding(method, antialias):
    """Of the float crop of `jax.image`: half a level, and what lies beyond cut off."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (31, 23, 3), dtype=np.uint8)
    for size, box in ((9, (0.0, 0.0, 1.0, 1.0)), (20, (0.3, 0.45, 0.69, 0.55))):
        top, left, tall, wide = np.float32(box) * np.float32([31, 23, 31, 23])
        scale = np.float32([size / tall, size / wide])
        want = jax.image.scale_and_translate(
            pixels.astype(np.float32),
            (size, size, 3),
            (0, 1),
            scale,
            -np.float32([top, left]) * scale,
            method,
            antialias=antialias,
        )
        got = images.crop_and_resize(
            pixels, np.float32(box), False, size, size, method, antialias
        )
        assert got.dtype == np.uint8
        np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=0.501 + 2**-10)


def test_antialias_averages_what_falls_onto_one_pixel(color):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = np.array([0, 0, 1, 1], np.float32)
    rough = images.crop_and_resize(pixels, whole, False, 4, 4)
    fine = images.crop_and_resize(pixels, whole, False, 4, 4, "linear", True)
    assert fine.astype(float).std() < 0.4 * rough.astype(float).std()
    np.testing.assert_allclose(fine.mean(), pixels.mean(), atol=6)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_file_without_an_end_is_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(images.ImageError, match="x.png: .*Not a regular file"):
        images.decode(path, 3, "x.png")
    assert images.stored_channels(path) is None


def test_other_decoders_of_pillow_are_not_started(tmp_path):
    """Pillow would start Ghostscript for this one, whatever its name."""
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (tmp_path / "x.jpg").write_bytes(header + b"showpage\n")
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "EPS"
    with pytest.raises(images.ImageError, match="cannot identify"):
        images.decode(tmp_path / "x.jpg", 3, "x.jpg")
