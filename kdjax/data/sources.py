"""Where images come from: named sets and functions of the user's, split as in TFDS."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kdjax.config import ConfigError, call, load_function, require


class Source(NamedTuple):
    """Decoded images with their labels and ids.

    images: `[n, height, width, channels]` uint8.
    labels: `[n]` int32 in [0, classes).
    ids: `[n]` int32, the place of each example in its whole split, so that an example
        keeps its id in every sub-split.
    classes: one more than the largest label of the whole split.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


Splits = Mapping[str, tuple[np.ndarray, np.ndarray]]


def digits() -> Splits:
    """scikit-learn's 1 797 hand-written digits, 8x8 grey, as train/validation/test.

    The set has no official split; this one is a fixed permutation: 1 000 train, 200
    validation, 597 test.
    """
    from sklearn.datasets import load_digits

    pixels, target = (np.asarray(x) for x in load_digits(return_X_y=True))
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.RandomState(0).permutation(len(images))
    parts = {"test": order[:597], "validation": order[597:797], "train": order[797:]}
    labels = target.astype(np.int32)
    return {name: (images[i], labels[i]) for name, i in parts.items()}


SETS = {"digits": digits}


def load_splits(name: str) -> Splits:
    """All splits of a data set: a name in `SETS`, or a user's `module:function`."""
    if ":" in name:
        splits = call(load_function(name, "data.name"), "data.name")
        require(isinstance(splits, Mapping), "data.name", "a dict of splits", splits)
        return splits
    known = " or ".join(sorted(SETS)) + " or module:function"
    require(name in SETS, "data.name", known, name)
    return SETS[name]()


def take_split(splits: Splits, text: str, field: str) -> Source:
    """The examples that `text` names: `train`, `train[:200]`, `train[10%:90%]`.

    Raises `ConfigError` naming `field` where the split is unknown, malformed or empty.
    """
    match = re.fullmatch(r"(\w+)(?:\[(-?\d*%?):(-?\d*%?)\])?", text)
    if match is None:
        raise ConfigError(f"{field}: expected a split like train[:90%], got {text!r}")
    name, start, stop = match.groups()
    require(name in splits, field, f"one of the splits {sorted(splits)}", name)
    images, labels = _arrays(splits[name], f"{field} ({name})")
    n = len(labels)
    part = slice(_bound(start, n), _bound(stop, n))
    ids = np.arange(n, dtype=np.int32)[part]
    require(len(ids) > 0, field, f"a split with examples (of {n})", text)
    classes = 1 + int(labels.max())
    return Source(images[part], labels[part].astype(np.int32), ids, classes)


def _bound(text: str | None, n: int) -> int | None:
    if not text:
        return None
    return round(n * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _arrays(split: object, at: str) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of a split, or an error that names what is wrong with them."""
    ok = isinstance(split, (tuple, list)) and len(split) == 2
    require(ok, at, "a pair (images, labels)", type(split).__name__)
    try:
        images, labels = (np.asarray(part) for part in split)  # type: ignore[union-attr]
    except ValueError as error:
        raise ConfigError(f"{at}: expected arrays: {error}") from error
    ok = images.ndim == 4 and images.dtype == np.uint8 and min(images.shape[1:]) > 0
    got = f"{images.dtype}{list(images.shape)}"
    require(ok, f"{at} images", "uint8 [n, height, width, channels]", got)
    ok = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    got = f"{labels.dtype}{list(labels.shape)}"
    require(ok, f"{at} labels", f"integers [{len(images)}]", got)
    if len(labels):
        low, high = int(labels.min()), int(labels.max())
        ok = 0 <= low and high < 2**31 - 1
        require(ok, f"{at} labels", "class ids in [0, 2^31 - 1)", f"{low} to {high}")
    return images, labels
