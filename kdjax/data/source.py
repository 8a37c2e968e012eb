"""A source: examples by index, each with an id that no sub-split changes."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.config import ConfigError, require
from kdjax.core.fingerprint import fingerprint_bytes
from kdjax.data import images as pictures

UNLABELED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Examples that can be read in any order.

    read: `index -> uint8 [height, width, channels]`, as large as the image is. May be
        called from several threads at a time.
    labels: `[n]` int32 in [0, classes), or -1 where an image has no label.
    ids: `[n]` int32, the index of each example in its whole split, so that an example
        keeps its id in every sub-split.
    classes: the number of classes of the labels; 0 without labels.
    shape: (height, width, channels) that every image is brought to.
    resizes: whether images of another height and width are resized to `shape`; if not,
        they are an error.
    name_of: `index -> text` that names an example in errors.
    content: `() -> text` that changes when the images of the whole split change.
    images: `[n, *shape]` uint8 where everything is in memory already, else None.
    sizes: `[n, 2]` int32 (height, width) before resizing, where `images` were resized.
    skipped: the reason for each image that was left out, a text each.
    names: of the classes, in the order of their numbers; empty where unknown.
    """

    read: Callable[[int], np.ndarray]
    labels: np.ndarray
    ids: np.ndarray
    classes: int
    shape: tuple[int, int, int]
    resizes: bool
    name_of: Callable[[int], str]
    content: Callable[[], str]
    images: np.ndarray | None = None
    sizes: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


class LazySplits(Mapping[str, Source]):
    """Splits by name, each made when it is first taken."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Source]):
        self._names, self._make = tuple(names), functools.cache(make)

    def __getitem__(self, name: str) -> Source:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        # That of Mapping makes the split.
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def fingerprint(source: Source) -> str:
    """Fingerprint of a source: 16 digits of its content, ids, labels and shape.

    The content of arrays is every pixel. That of a folder or a TFDS set is the names,
    sizes and bytes of its files. That of a Hugging Face data set is the pixels, and
    with more than 1 GiB also the library's own fingerprint. Of more than 1 GiB in a
    split an evenly spread sample is read (`kdjax.core.fingerprint`), at the first call.
    """
    about = f"{source.content()} {source.classes} {source.shape} {source.resizes}"
    columns = (np.ascontiguousarray(x, "<i4") for x in (source.ids, source.labels))
    return fingerprint_bytes(about.encode(), *(x.tobytes() for x in columns))


def load(source: Source, index: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One image brought to the source's shape, and its own (height, width).

    Raises:
      ImageError: it cannot be decoded.
      ShapeError: it has another shape where none is resized.
    """
    image = source.read(index)
    height, width = image.shape[:2]
    if source.sizes is not None:
        height, width = (int(x) for x in source.sizes[index])
    if image.shape != source.shape:
        if not source.resizes or image.shape[2] != source.shape[2]:
            raise pictures.ShapeError(
                f"{source.name_of(index)}: expected shape {source.shape} as the images "
                f"before, got {image.shape} (data.store resizes to one shape)"
            )
        image = pictures.resize(image, *source.shape[:2])
    return image, (height, width)


def select(source: Source, indices: slice | np.ndarray) -> Source:
    """The examples at some indices, with their ids."""
    chosen = np.arange(len(source))[indices]

    def pick(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else x[indices]

    return dataclasses.replace(
        source,
        read=lambda index: source.read(int(chosen[index])),
        labels=source.labels[indices],
        ids=source.ids[indices],
        name_of=lambda index: source.name_of(int(chosen[index])),
        images=pick(source.images),
        sizes=pick(source.sizes),
    )


def drop_labels(source: Source) -> Source:
    """The same images without labels: their targets come from a teacher alone."""
    labels = np.full(len(source), UNLABELED, np.int32)
    return dataclasses.replace(source, labels=labels, classes=0, names=())


def with_classes_of(source: Source, labeled: Sequence[Source]) -> Source:
    """Images without labels, with the classes of labeled ones: of several sources,
    those of the one with the most classes."""
    most = max(labeled, key=lambda other: other.classes, default=None)
    classes, names = (most.classes, most.names) if most else (0, ())
    return dataclasses.replace(source, classes=classes, names=names)


def with_class_count(source: Source, classes: int, field: str) -> Source:
    """The same examples, as of so many classes; images without labels as they are.

    Raises:
      ConfigError: a label is beyond them, or the set names fewer or more.
    """
    if not source.classes:
        return source
    named, expected = len(source.names), f"{classes} classes (data.classes)"
    require(not named or named == classes, field, expected, f"the names of {named}")
    index = int(source.labels.argmax())
    highest = int(source.labels[index])
    got = f"{highest} ({source.name_of(index)})"
    require(highest < classes, field, f"labels below {expected}", got)
    return dataclasses.replace(source, classes=classes)


def convert_channels(source: Source, channels: int) -> Source:
    """The same examples, every image made gray (1) or RGB (3). 0 changes nothing."""
    if channels in (0, source.shape[2]):
        return source
    return dataclasses.replace(
        source,
        read=lambda index: pictures.convert_channels(source.read(index), channels),
        shape=(*source.shape[:2], channels),
        images=None,
    )


def resize_all(source: Source, store: int) -> Source:
    """The same examples, every whole image resized to a square of `store` pixels.

    The aspect is not kept: a box in shares of height and width cuts the same out of
    the square as out of the original. `store` 0 changes nothing.
    """
    if not store:
        return source
    shape = (store, store, source.shape[2])
    return dataclasses.replace(source, shape=shape, resizes=True, images=None)


def concatenate(parts: Sequence[Source], field: str = "sources") -> Source:
    """Several whole splits one after another.

    The ids of each part are moved up by the lengths of the parts before it. Labels keep
    their numbers, so parts with labels must have the same number of classes, and those
    with names of their classes the same names in the same order.

    Raises:
      ConfigError: parts of different channels, shapes, names or numbers of classes.
    """
    require(len(parts) > 0, field, "at least one source", len(parts))
    first = parts[0]
    for part in parts[1:]:
        same = part.resizes == first.resizes and part.shape == first.shape
        expected = f"images of one shape {first.shape} (data.store, data.channels)"
        require(same, field, expected, part.shape)
    labeled = [part for part in parts if (part.labels >= 0).any()]
    named = [part.names for part in labeled if part.names]
    for names in named[1:]:
        expected = "parts with the same classes in the same order"
        check_same_names(named[0], names, field, expected)
    classes = {part.classes for part in labeled}
    expected = "labels of the same number of classes"
    require(len(classes) <= 1, field, expected, sorted(classes))
    starts = np.cumsum([0, *(len(part) for part in parts)])
    lengths = [int(part.ids.max(initial=-1)) + 1 for part in parts]
    offsets = np.cumsum([0, *lengths[:-1]])
    ids = [part.ids + o for part, o in zip(parts, offsets, strict=True)]

    def find(index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(starts, index, side="right")) - 1
        return parts[number], index - int(starts[number])

    def read(index: int) -> np.ndarray:
        part, index = find(index)
        return part.read(index)

    def name_of(index: int) -> str:
        part, index = find(index)
        return part.name_of(index)

    return Source(
        read=read,
        labels=np.concatenate([part.labels for part in parts]),
        ids=np.concatenate(ids).astype(np.int32),
        classes=max(classes, default=first.classes),
        shape=first.shape,
        resizes=first.resizes,
        name_of=name_of,
        content=lambda: " + ".join(part.content() for part in parts),
        names=named[0] if named else (),
    )


def check_same_names(
    first: Sequence[str], other: Sequence[str], field: str, expected: str
) -> None:
    """Refuse classes that only share their numbers.

    Raises ConfigError naming `field`, what it wants, and both lists where they differ.
    """
    if first == other:
        return
    pairs = zip(first, other, strict=False)
    differ = (i for i, (a, b) in enumerate(pairs) if a != b)
    at = next(differ, min(len(first), len(other)))

    def shown(names: Sequence[str]) -> str:
        if len(names) <= 12:
            return str(list(names))
        return f"{len(names)} with {list(names[at : at + 3])} from number {at} on"

    got = f"{shown(first)} and {shown(other)}"
    raise ConfigError(field, expected, other, shown=got)


def class_names(feature: Any) -> tuple[str, ...]:
    """The names in a `ClassLabel` of TFDS or Hugging Face; empty where it has none, or
    only numbers."""
    names = tuple(getattr(feature, "names", None) or ())
    return () if names == tuple(str(i) for i in range(len(names))) else names


def first_shape(
    read: Callable[[int], np.ndarray], count: int, field: str
) -> tuple[int, int, int]:
    """The shape of the first image that can be read.

    Raises:
      ConfigError: none of the first images can be.
    """
    error: Exception | None = None
    for index in range(min(count, 16)):
        try:
            height, width, channels = read(index).shape
            return height, width, channels
        except pictures.ImageError as problem:
            error = error or problem
    text = f"expected images, the first {min(count, 16)} cannot be read: {error}"
    raise ConfigError(field, reason=text)


def is_channels_first(shape: Sequence[int]) -> bool:
    """True for the shape of an image [channels, height, width]: 1, 3 or 4 channels, and
    a width that is no number of channels."""
    return shape[0] in (1, 3, 4) and shape[2] > 4


def check_rows(source: Source, field: str) -> None:
    """Refuse a source whose ids or labels cannot be those of examples.

    Raises:
      ConfigError: naming `field` and what is wrong with which of them.
    """
    n, ids, labels = len(source), source.ids, source.labels
    require(ids.shape == (n,), f"{field} ids", f"{n}, one an example", list(ids.shape))
    expected = "channels last, (height, width, channels)"
    ok = not is_channels_first(source.shape)
    require(ok, f"{field} shape", expected, source.shape)
    once = len(np.unique(ids)) == n
    require(once, f"{field} ids", "another id for every example", "some twice")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=-1))
    expected = f"labels in [-1, {source.classes})"
    ok = UNLABELED <= low and high < max(source.classes, 0)
    require(ok, f"{field} labels", expected, f"{low} to {high}")


def check_labeled(source: Source, field: str) -> None:
    """Refuse images without labels, before labels are learned from or measured on.

    Raises:
      ConfigError: naming `field` and how many have none.
    """
    missing = int((source.labels < 0).sum())
    expected = "a label for every image, where labels are used"
    require(missing == 0, field, expected, f"{missing} of {len(source)} without")
