"""One image at a time on the host: decode, bring to a size, cut out."""

import io
import os
import pathlib

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)


_RESAMPLING = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}


class ImageError(ValueError):
    """An image that cannot be used; the text names it and says why."""


def decode(
    file: str | os.PathLike | bytes | Image.Image, channels: int, name: str
) -> np.ndarray:
    """The pixels of an image file as uint8 `[height, width, channels]`.

    Grey becomes RGB by repeating, colour becomes grey by ITU-R 601 luma. What is
    transparent lies on white. The EXIF orientation is not applied, as TFDS and the
    paper's pipeline do not either.

    Args:
      file: a path, the bytes of a file, or a PIL image.
      channels: 1 or 3; 0 keeps grey images at 1 and makes all others 3.
      name: what errors call the image.

    Raises:
      ImageError: the file is damaged, is no image, or has more than 8 bits a channel.
    """
    try:
        if not isinstance(file, Image.Image):
            whole = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
            file = Image.open(io.BytesIO(whole))
        image = file
        # Pillow raises errors of many kinds; whichever it is, the file is of no use.
        image.load()
    except Exception as error:
        text = f"{name}: cannot be decoded: {type(error).__name__}: {error}"
        raise ImageError(text) from error
    if image.mode[0] in "IF":
        raise ImageError(f"{name}: expected 8 bits a channel, got mode {image.mode}")
    mode = {0: "L" if image.mode in ("1", "L", "LA") else "RGB", 1: "L", 3: "RGB"}
    pixels = np.asarray(_opaque(image).convert(mode[channels]))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    grey = image.mode == "LA"
    image = image.convert("RGBA")
    below = Image.new("RGBA", image.size, (*WHITE, 255))
    return Image.alpha_composite(below, image).convert("L" if grey else "RGB")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A whole uint8 image at another size, bilinear with antialias."""
    if image.shape[:2] == (height, width):
        return image
    return _array(_pil(image).resize((width, height), Image.Resampling.BILINEAR))


def cut(
    image: np.ndarray,
    box: np.ndarray,
    flip: bool,
    height: int,
    width: int,
    method: str = "linear",
    antialias: bool = False,
) -> np.ndarray:
    """Cut a box out at full resolution and resize it.

    What `kdjax.augment.geometry.apply_crops` does on the device, rounded to uint8; with
    antialias, pixels beyond the box do not count here.

    Args:
      image: uint8 `[h, w, channels]`.
      box: `[4]` (top, left, height, width) in shares of the image's height and width.
      flip: mirror left to right.
      height, width: of the result in pixels.
      method: "linear" or "cubic", and with antialias "lanczos3" too.
      antialias: average where the box is made smaller.
    """
    h, w = image.shape[:2]
    top, left = float(box[0]) * h, float(box[1]) * w
    right, bottom = left + float(box[3]) * w, top + float(box[2]) * h
    extent = (left, top, min(right, w), min(bottom, h))
    to, how = (width, height), _RESAMPLING[method]
    if antialias:
        pixels = _array(_pil(image).resize(to, how, box=extent))
    elif method == "lanczos3":
        raise ValueError("views.method: expected antialias with lanczos3 on the host")
    else:
        pixels = _interpolate(image, extent, to, how)
    return pixels[:, ::-1] if flip else pixels


def _interpolate(
    image: np.ndarray, extent: tuple, to: tuple[int, int], how: Image.Resampling
) -> np.ndarray:
    """Each channel in float, then rounded: in uint8, Pillow drops what is behind the
    point here, and images would be darker by half a level."""
    left, top = (max(int(x) - 2, 0) for x in extent[:2])
    right, bottom = (int(x) + 3 for x in extent[2:])
    near = _pil(np.ascontiguousarray(image[top:bottom, left:right]))
    box = tuple(x - (left, top)[i % 2] for i, x in enumerate(extent))
    parts = [
        np.asarray(band.convert("F").transform(to, Image.Transform.EXTENT, box, how))
        for band in near.split()
    ]
    return np.clip(np.round(np.stack(parts, axis=-1)), 0, 255).astype(np.uint8)


def central(image: np.ndarray, *, resize_to: int, crop: int) -> np.ndarray:
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
