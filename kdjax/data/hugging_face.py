"""Hugging Face `datasets` objects as sources, without importing that library."""

import functools
from typing import Any

import numpy as np

from kdjax.config import require
from kdjax.core import fingerprint
from kdjax.data import images as pictures
from kdjax.data.source import UNLABELED, Source, class_names, first_shape


def from_hugging_face(
    dataset: Any,
    *,
    image: str = "image",
    label: str | None = "label",
    channels: int = 0,
) -> Source:
    """One split of a `datasets.Dataset` that has a column of images.

    Args:
      dataset: the split, with random access; for several pass
        `{"train": from_hugging_face(...), "test": ...}` as `splits`.
      image: the column of images, decoded (PIL) or as arrays.
      label: the column of integer labels; None for a set without.
      channels: 1 or 3; 0 as the first image, and a color image among gray ones is an
        error when it is read.

    Raises:
      ConfigError: a column that is not there, or labels that are no integers.
    """
    columns = list(dataset.column_names)
    for name in (image, *([label] if label else [])):
        require(name in columns, "from_hugging_face", f"a column of {columns}", name)
    n = len(dataset)
    classes, names, labels = 0, (), np.full(n, UNLABELED, np.int32)
    if label:
        values = np.asarray(list(dataset[label]))
        ok = values.shape == (n,) and np.issubdtype(values.dtype, np.integer)
        require(ok, f"column {label}", "an integer for every example", values.dtype)
        labels = values.astype(np.int32)
        class_count = getattr(dataset.features[label], "num_classes", None)
        names = class_names(dataset.features[label])
        classes = int(class_count or 1 + labels.max(initial=-1))
        low, high = int(labels.min(initial=0)), int(labels.max(initial=-1))
        ok = low >= UNLABELED and high < classes
        require(ok, f"column {label}", f"labels in [-1, {classes})", f"{low} to {high}")

    # Until the first image has said it, where nobody did.
    depth, like = channels, ""

    def name_of(index: int) -> str:
        return f"example {index}"

    def read(index: int) -> np.ndarray:
        try:
            value = dataset[index][image]
        except Exception as error:
            text = f"{name_of(index)}: cannot be read: {type(error).__name__}: {error}"
            raise pictures.ImageError(text) from error
        if hasattr(value, "convert"):
            return pictures.decode(value, depth, name_of(index), like)
        return _checked(np.asarray(value), depth, name_of(index))

    shape = first_shape(read, n, "from_hugging_face")
    if not channels:
        depth, like = shape[2], "an earlier one" if shape[2] == 1 else ""

    def image_bytes(index: int) -> bytes:
        try:
            pixels = read(index)
        except pictures.ImageError as error:
            return str(error).encode()
        return f"{pixels.shape}".encode() + pixels.tobytes()

    @functools.cache
    def content() -> str:
        size = int(np.prod(shape))
        pixels = fingerprint.fingerprint_images(image_bytes, n, size)
        # The library's changes when files are only moved or touched.
        sampled = n * size > fingerprint.LIMIT
        return f"{dataset._fingerprint} {pixels}" if sampled else pixels

    return Source(
        read=read,
        labels=labels,
        ids=np.arange(n, dtype=np.int32),
        classes=classes,
        shape=shape,
        resizes=False,
        name_of=name_of,
        content=content,
        names=names,
    )


def _checked(pixels: np.ndarray, channels: int, name: str) -> np.ndarray:
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if np.issubdtype(pixels.dtype, np.integer) and pixels.dtype != np.uint8:
        # A column of arrays comes as lists, whose numbers have lost their type.
        fits = pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 255
        pixels = pixels.astype(np.uint8) if fits else pixels
    ok = pixels.ndim == 3 and pixels.dtype == np.uint8
    if not ok or pixels.shape[2] not in ((channels,) if channels else (1, 3)):
        got = f"{pixels.dtype}{list(pixels.shape)}"
        last = "channels last, " if pixels.ndim == 3 and len(pixels) in (1, 3) else ""
        text = f"{name}: expected {last}uint8 [height, width, {channels or '1 or 3'}]"
        raise pictures.ImageError(f"{text}, got {got}")
    return pixels
