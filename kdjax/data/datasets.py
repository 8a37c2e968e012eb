"""Data sets by name, and splits by text, as in TFDS.

digits                    scikit-learn's 1 797 digits
cifar10, imagenet2012 ... the sets of `tfds_sets.PRESETS`, prepared by TFDS
tfds:NAME                 any other TFDS set of images
folder:PATH               PATH/split/class/*.jpg
module:function           your own, returning {split: (images, labels)}
NAME+NAME                 several of the same classes, joined split by split; in a
                          path that exists, and stands alone, a plus joins nothing
"""

import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kdjax.config import (
    ConfigError,
    call,
    load_function,
    near_names,
    require,
    require_known,
    suggest,
)
from kdjax.core.fingerprint import fingerprint_bytes
from kdjax.data import folder, tfds_sets
from kdjax.data.hugging_face import from_hugging_face
from kdjax.data.source import (
    LazySplits,
    Source,
    check_rows,
    concatenate,
    convert_channels,
    drop_labels,
    is_channels_first,
    resize_all,
    select,
)

__all__ = [
    "Source",
    "Splits",
    "default_split",
    "digits",
    "from_arrays",
    "from_hugging_face",
    "load_splits",
    "take_split",
]

# A split is a source, or arrays (uint8 images, labels or None) to make one of.
Splits = Mapping[str, Any]


def digits() -> Splits:
    """scikit-learn's 1 797 hand-written digits, 8x8 gray, as train/validation/test.

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


def load_splits(
    name: str,
    *,
    data_dir: str = "",
    channels: int = 0,
    store: int = 0,
    labeled: bool = True,
    read_labels: bool = True,
    field: str = "data.name",
    used: Collection[str] = (),
) -> Splits:
    """All splits of a data set.

    Args:
      name: one of the forms above.
      data_dir: where TFDS has its sets; empty for its own default.
      channels: 1 or 3 for every image; 0 keeps those of the set.
      store: side of the square that every image is resized to; 0 does not resize.
      labeled: False takes the images alone, so that sets of other classes join.
      read_labels: False may leave labels at 0 where reading them takes a pass over
        all examples, as for the sets of TFDS.
      field: the name of `name` in errors.
      used: names of the splits in use, which define the classes of a folder; by
        default all.

    Raises:
      ConfigError: no such set, or nothing of it on this machine. Nothing is downloaded.
    """
    path = name.removeprefix("folder:").rpartition(":")
    is_path = pathlib.Path(path[0] or path[2]).exists()
    names = [name] if is_path else [part.strip() for part in name.split("+")]
    if len(names) == 1 and labeled and not (channels or store):
        return _one_set(names[0], data_dir, channels, field, used, read_labels)
    sets = [
        _one_set(part, data_dir, channels, field, used, read_labels) for part in names
    ]
    shared = [split for split in sets[0] if all(split in one for one in sets)]
    require(bool(shared), field, "sets with a split in common", name)

    def part(number: int, split: str) -> Source:
        at = f"{field} ({names[number]} {split})"
        part_source = convert(as_source(sets[number][split], at), channels, store)
        return part_source if labeled else drop_labels(part_source)

    def join_parts(split: str) -> Source:
        parts = [part(number, split) for number in range(len(names))]
        return parts[0] if len(parts) == 1 else concatenate(parts, f"{field} ({split})")

    return LazySplits(shared, join_parts)


def is_own(name: str) -> bool:
    """True for a set in memory: digits, or what a function of the user's returns."""
    files = name.startswith(("folder:", "tfds:")) or "+" in name
    return name in SETS or (":" in name and not files)


def convert(source: Source, channels: int, store: int) -> Source:
    """The same examples with some channels, as squares of `store` pixels; 0 leaves
    either as it is."""
    return resize_all(convert_channels(source, channels), store)


def _one_set(
    name: str,
    data_dir: str,
    channels: int,
    field: str,
    used: Collection[str],
    read_labels: bool,
) -> Splits:
    if name in SETS:
        return SETS[name]()
    if name in tfds_sets.PRESETS or name.startswith("tfds:"):
        name = name.removeprefix("tfds:")
        return tfds_sets.load(name, data_dir, channels, field, read_labels=read_labels)
    if name.startswith("folder:"):
        return folder.load(name.removeprefix("folder:"), channels, field, used)
    if ":" in name:
        splits = call(load_function(name, field), field)
        check_splits(splits, field)
        return splits
    names = [*SETS, *tfds_sets.PRESETS]
    near = near_names(name, names)
    forms = "folder:PATH, tfds:NAME, file.py:function or one of"
    choices = ", ".join(near or sorted(names))
    more = ", ..." if near else ""
    expected = f"{forms} {choices}{more}"
    is_folder = bool(name) and pathlib.Path(name).expanduser().is_dir()
    hint = suggest([f"folder:{name}"] if is_folder else near)
    raise ConfigError(field, expected, name, hint=hint)


def default_split(name: str, role: str) -> str:
    """The split behind `default`, for the train, validation or test split of a set.

    The splits of arXiv 2106.05237 (its Table 5), where it uses the set. Sets without a
    validation split give the last tenth of their training split.

    >>> default_split("oxford_iiit_pet", "validation")
    'train[90%:]'
    """
    preset = tfds_sets.PRESETS.get(name)
    return role if preset is None else getattr(preset, role)


def from_arrays(images: Any, labels: Any, at: str = "images") -> Source:
    """A source of uint8 images `[n, height, width, channels]` in memory.

    Args:
      images: the pixels.
      labels: `[n]` integers from 0; None for images without labels.
      at: their name in errors.

    Raises:
      ConfigError: naming what is wrong with the arrays.

    >>> source = from_arrays(np.zeros((6, 8, 8, 3), np.uint8), [0, 1, 2, 0, 1, 2])
    >>> len(source), source.shape, source.classes
    (6, (8, 8, 3), 3)
    """
    images, labels = _arrays(images, labels, at)
    classes = 1 + int(labels.max(initial=-1))

    def content() -> str:
        pixels = np.ascontiguousarray(images).data
        return fingerprint_bytes(f"{images.shape}".encode(), pixels, digits=64)

    return Source(
        read=lambda index: images[index],
        labels=labels,
        ids=np.arange(len(labels), dtype=np.int32),
        classes=classes,
        shape=images.shape[1:],
        resizes=False,
        name_of=lambda index: f"{at} {index}",
        content=content,
        images=images,
    )


def check_splits(splits: Any, field: str) -> None:
    """Refuse what is no dict of splits with a `ConfigError` that names `field`."""
    expected, got = (
        "a dict of splits, {'train': (images, labels)}",
        type(splits).__name__,
    )
    require(isinstance(splits, Mapping), field, expected, got)


def as_source(split: Any, at: str) -> Source:
    """A split as a source: it is one, or a pair (images, labels or None)."""
    if isinstance(split, Source):
        check_rows(split, at)
        return split
    ok = isinstance(split, (tuple, list)) and len(split) == 2
    require(ok, at, "a pair (images, labels)", type(split).__name__)
    images, labels = split
    return from_arrays(images, labels, at)


_SPLIT = re.compile(r"([^\[\]]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def split_name(text: str) -> str:
    """The name of the split that a sub-split is cut from: `train` of `train[:200]`."""
    return text.partition("[")[0]


def take_split(
    splits: Splits, text: str, field: str, shuffle_seed: int | None = None
) -> Source:
    """The examples that `text` names: `train`, `train[:200]`, `train[10%:90%]`.

    Bounds below 0 count from the end, as in TFDS; beyond the split they are errors.

    shuffle_seed: cut the sub-split from the split in an order drawn by this seed; its
        examples keep the order of the split. None cuts from the order of the split.

    Raises `ConfigError` naming `field` where the split is unknown, malformed or empty.

    >>> splits = {"train": (np.zeros((10, 8, 8, 3), np.uint8), np.arange(10))}
    >>> take_split(splits, "train[80%:]", "data.train").ids
    array([8, 9], dtype=int32)
    """
    match = _SPLIT.fullmatch(text)
    forms = "a split as train, train[:200], train[200:], train[10%:90%] or train[-5%:]"
    require(match is not None, field, forms, text)
    assert match is not None
    name, start, stop = match.groups()
    require_known(name, splits, field, f"one of the splits {sorted(splits)}")
    split_source = as_source(splits[name], f"{field} ({name})")
    n = len(split_source)
    bounds = []
    for bound, default in ((start, 0), (stop, n)):
        index = default if bound is None else _to_index(bound, n)
        expected = f"bounds within its {n} examples and 100%"
        require(0 <= index <= n, field, expected, text)
        bounds.append(index)
    expected = f"a split with examples (of {n}), a start before its stop"
    require(bounds[0] < bounds[1], field, expected, text)
    if bounds == [0, n]:
        return split_source
    if shuffle_seed is None:
        return select(split_source, slice(*bounds))
    # The generator whose draws no version of NumPy changes.
    order = np.random.RandomState(shuffle_seed).permutation(n)
    return select(split_source, np.sort(order[slice(*bounds)]))


def _to_index(bound: str, n: int) -> int:
    """The index of a bound among `n` examples; -1 beyond them."""
    number, is_percent = int(bound.rstrip("%")), bound.endswith("%")
    if abs(number) > (100 if is_percent else n):
        return -1
    index = round(n * number / 100) if is_percent else number
    return index + n if bound.startswith("-") else index


def _arrays(images: Any, labels: Any, at: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as arrays, or an error that names what is wrong with them."""
    try:
        images = np.asarray(images)
        missing = labels is None
        labels = np.full(len(images), -1) if missing else np.asarray(labels)
    except (ValueError, TypeError) as error:
        raise ConfigError(at, reason=f"expected arrays: {error}") from error
    ok = images.ndim == 4 and images.dtype == np.uint8 and min(images.shape[1:]) > 0
    got = f"{images.dtype}{list(images.shape)}"
    require(ok, f"{at} images", "uint8 [n, height, width, channels]", got)
    expected = "channels last, uint8 [n, height, width, channels]"
    require(not is_channels_first(images.shape[1:]), f"{at} images", expected, got)
    ok = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    got = f"{labels.dtype}{list(labels.shape)}"
    require(ok, f"{at} labels", f"integers [{len(images)}]", got)
    if len(labels) and not missing:
        low, high = int(labels.min()), int(labels.max())
        ok = 0 <= low and high < 2**31 - 1
        require(ok, f"{at} labels", "class ids in [0, 2^31 - 1)", f"{low} to {high}")
    return images, labels.astype(np.int32)
