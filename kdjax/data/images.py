"""One image at a time on the host: decode, bring to a size, cut out."""

import functools
import io
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from kdjax.config import ConfigError
from kdjax.core.pixels import round_pixels
from kdjax.core.safe_read import read_bytes, require_regular

WHITE = (255, 255, 255)
# Decoders of Pillow that are used, whatever the name of a file. Others may start
# programs, as that of EPS does.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


class ImageError(ValueError):
    """An image that cannot be used; the text names it and says why."""


class ShapeError(ImageError):
    """An image of another shape than its set: no damage, but a matter of the config."""


def decode(
    file: str | os.PathLike | bytes | Image.Image,
    channels: int,
    name: str,
    like: str = "",
) -> np.ndarray:
    """The pixels of an image file as uint8 `[height, width, channels]`.

    Gray becomes RGB by repeating, color becomes gray by ITU-R 601 luma. What is
    transparent lies on white. The EXIF orientation is not applied, as TFDS and the
    paper's pipeline do not either.

    Args:
      file: a path, the bytes of a file, or a PIL image.
      channels: 1 or 3; 0 keeps gray images at 1 and makes all others 3.
      name: the name of the image in errors.
      like: the gray image that all of a set were taken to be like, if one was.

    Raises:
      ImageError: the file is damaged, is no image, or has more than 8 bits a channel
        or several frames.
      ConfigError: it is in color and `like` is gray; color is lost on request only.
    """
    stream = io.BytesIO()
    try:
        if not isinstance(file, Image.Image):
            content = file if isinstance(file, bytes) else read_bytes(file)
            stream = io.BytesIO(content)
            file = Image.open(stream, formats=FORMATS)
        image = file
        depths = [tile[-1] for tile in getattr(image, "tile", [])]
        # Pillow raises errors of many kinds; whichever it is, the file is of no use.
        image.load()
    except Exception as error:
        # Pillow names the stream, which is no name of a file.
        why = str(error).replace(f" {stream!r}", "")
        text = f"{name}: cannot be decoded: {type(error).__name__}: {why}"
        raise ImageError(text) from error
    _check_kind(image, depths, name)
    depth = _channels(image)
    if like and depth == 3:
        expected = f"gray images, as {like} is (1 or 3 makes all alike)"
        raise ConfigError("data.channels", expected, depth, shown=f"color in {name}")
    return _array(_opaque(image).convert("L" if (channels or depth) == 1 else "RGB"))


def stored_channels(file: str | os.PathLike | bytes) -> int | None:
    """Channels of an image file as stored, from its header: 1 (gray) or 3.

    None for a file that is no image.
    """
    try:
        source: Any = file
        if isinstance(file, bytes):
            source = io.BytesIO(file)
        else:
            require_regular(file)
        with Image.open(source, formats=FORMATS) as image:
            return _channels(image)
    except Exception:
        # As in `decode`, which names what is wrong with the file.
        return None


def format_conversion(found: list[int | None], channels: int) -> str:
    """`12 of 64 images have 3 channels and become gray`; empty where none changes.

    found: of `stored_channels`.
    """
    other = sum(x not in (None, channels) for x in found)
    change = "3 channels and become gray"
    change = change if channels == 1 else "1 channel and become RGB"
    return f"{other} of {len(found)} images have {change}" if other else ""


def _channels(image: Image.Image) -> int:
    return 1 if image.mode in ("1", "L", "LA") else 3


def _check_kind(image: Image.Image, depths: list[Any], name: str) -> None:
    """Refuse more than 8 bits a channel, of which Pillow keeps the upper 8 for color,
    and several frames, of which it reads the first.

    depths: Pillow's names of the stored pixels, as "RGB;16B", or for PPM with the
        largest value, as ("RGB", 65535); it forgets them when it decodes.
    """
    texts = [str(x) for x in depths]
    sixteen = any(";16" in x and "BGR;16" not in x for x in texts)
    if image.format == "PPM":
        largest = [x[1] for x in depths if isinstance(x, tuple)]
        sixteen |= max(largest, default=0) > 255
    if sixteen or image.mode[0] in "IF":
        got = "16" if sixteen else f"mode {image.mode}"
        raise ImageError(f"{name}: expected 8 bits a channel, got {got}")
    # A second picture in a JPEG (MPO) is a preview or another view of the first.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", "several")
        raise ImageError(f"{name}: expected one image, got {frames} frames")


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    gray = image.mode == "LA"
    image = image.convert("RGBA")
    below = Image.new("RGBA", image.size, (*WHITE, 255))
    return Image.alpha_composite(below, image).convert("L" if gray else "RGB")


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """A gray image as RGB or the reverse, as `decode` converts them."""
    if image.shape[2] == channels:
        return image
    return _array(_pil(image).convert("L" if channels == 1 else "RGB"))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A whole uint8 image at another size, bilinear with antialias."""
    if image.shape[:2] == (height, width):
        return image
    return _array(_pil(image).resize((width, height), Image.Resampling.BILINEAR))


def crop_and_resize(
    image: np.ndarray,
    box: np.ndarray,
    flip: bool,
    height: int,
    width: int,
    method: str = "linear",
    antialias: bool = False,
) -> np.ndarray:
    """Cut a box out at full resolution and resize it.

    The counterpart of `kdjax.augment.geometry.apply_crops` on the device, rounded to
    uint8. Not by Pillow: its cubic is another one (a = -1), and it rounds between the
    two axes.

    Args:
      image: uint8 `[h, w, channels]`.
      box: `[4]` (top, left, height, width) in shares of the image's height and width.
      flip: mirror left to right.
      height, width: of the result in pixels.
      method: "linear", "cubic" or "lanczos3".
      antialias: average over the pixels that fall onto one where the box is made
        smaller.
    """
    h, w = image.shape[:2]
    top, left, tall, wide = np.asarray(box, np.float32) * np.array([h, w, h, w], "f")
    how = _KERNELS[method], antialias
    rows, down = _taps(top, tall, h, height, *how)
    columns, across = _taps(left, wide, w, width, *how)
    first, last = columns.min(), columns.max()
    near = _weigh(image[:, first : last + 1], rows, down, axis=0)
    pixels = _weigh(near, columns - first, across, axis=1)
    pixels = np.clip(round_pixels(pixels, np), 0, 255).astype(np.uint8)
    return pixels[:, ::-1] if flip else pixels


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# Each with how far it reaches, in pixels.
_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "linear": (lambda x: np.maximum(1 - x, 0), 1),
    "cubic": (_cubic, 2),
    "lanczos3": (lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0), 3),
}


def _taps(
    start: float, length: float, size: int, count: int, kernel: tuple, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Source pixels `[count, taps]` of each of `count` new pixels along an axis, and
    their weights, which sum to one over the pixels inside the image."""
    weigh, reach = kernel
    step = length / np.float32(count)
    spread = max(step, np.float32(1)) if antialias else np.float32(1)
    at = start + (np.arange(count, dtype=np.float32) + 0.5) * step - np.float32(0.5)
    first = np.ceil(at - reach * spread).astype(int)
    indices = first[:, None] + np.arange(int(2 * reach * spread) + 1)
    weights = weigh(np.abs(at[:, None] - indices) / spread).astype(np.float32)
    weights *= (indices >= 0) & (indices < size)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, size - 1), weights


def _weigh(
    image: np.ndarray, indices: np.ndarray, weights: np.ndarray, axis: int
) -> np.ndarray:
    """Weighted sums of the rows (axis 0) or columns (axis 1) of an image, float32."""
    shape = (-1, 1, 1) if axis == 0 else (-1, 1)
    taps = zip(indices.T, weights.T, strict=True)
    parts = (np.take(image, at, axis) * weight.reshape(shape) for at, weight in taps)
    return functools.reduce(operator.iadd, parts)


def crop_center(image: np.ndarray, *, resize_to: int, crop: int) -> np.ndarray:
    """The paper's view for evaluation: smaller side to `resize_to` pixels by averaging
    areas, the aspect kept, then the central square of `crop` pixels.
    """
    h, w = image.shape[:2]
    scale = resize_to / min(h, w)
    height, width = round(h * scale), round(w * scale)
    if (height, width) != (h, w):
        # Enlarged, areas are the nearest pixels: bilinear is what is meant then.
        how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
        image = _array(_pil(image).resize((width, height), how))
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[top : top + crop, left : left + crop]


def _pil(image: np.ndarray) -> Image.Image:
    if image.shape[2] not in (1, 3):
        raise ImageError(f"images: expected 1 or 3 channels, got {image.shape[2]}")
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
