"""A source: examples by place, each with an id that no sub-split changes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdjax.config import ConfigError, require
from kdjax.core.fingerprint import fingerprint_bytes
from kdjax.data import images as pictures

UNLABELLED = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Examples that can be read in any order.

    read: `place -> uint8 [height, width, channels]`, as large as the image is. May be
        called from several threads at a time.
    labels: `[n]` int32 in [0, classes), or -1 where an image has no label.
    ids: `[n]` int32, the place of each example in its whole split, so that an example
        keeps its id in every sub-split.
    classes: how many classes the labels are of; 0 where there are none.
    shape: (height, width, channels) that every image is brought to.
    resizes: whether images of another height and width are resized to `shape`; if not,
        they are an error.
    name_of: `place -> text` that names an example in errors.
    content: `() -> text` that changes when the images of the whole split change.
    images: `[n, *shape]` uint8 where everything is in memory already, else None.
    sizes: `[n, 2]` int32 (height, width) before resizing, where `images` were resized.
    left_out: why images that belong here are not among them, a text each.
    names: of the classes, in the order of their numbers; empty where nobody knows.
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
    left_out: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


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


def load(source: Source, place: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One image brought to the source's shape, and its own (height, width).

    Raises:
      ImageError: it cannot be decoded.
      ShapeError: it has another shape where none is resized.
    """
    image = source.read(place)
    height, width = image.shape[:2]
    if source.sizes is not None:
        height, width = (int(x) for x in source.sizes[place])
    if image.shape != source.shape:
        if not source.resizes or image.shape[2] != source.shape[2]:
            raise pictures.ShapeError(
                f"{source.name_of(place)}: expected shape {source.shape} as the images "
                f"before, got {image.shape} (data.store resizes to one shape)"
            )
        image = pictures.resize(image, *source.shape[:2])
    return image, (height, width)


def select(source: Source, places: slice | np.ndarray) -> Source:
    """The examples at some places, with their ids."""
    chosen = np.arange(len(source))[places]

    def pick(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else x[places]

    return dataclasses.replace(
        source,
        read=lambda place: source.read(int(chosen[place])),
        labels=source.labels[places],
        ids=source.ids[places],
        name_of=lambda place: source.name_of(int(chosen[place])),
        images=pick(source.images),
        sizes=pick(source.sizes),
    )


def unlabelled(source: Source) -> Source:
    """The same images without labels: only a teacher can say what they are."""
    labels = np.full(len(source), UNLABELLED, np.int32)
    return dataclasses.replace(source, labels=labels, classes=0, names=())


def of_classes(source: Source, labelled: Sequence[Source]) -> Source:
    """Images without labels, as of the problem that labelled ones belong to: with the
    most classes that any of these has."""
    most = max(labelled, key=lambda other: other.classes, default=None)
    classes, names = (most.classes, most.names) if most else (0, ())
    return dataclasses.replace(source, classes=classes, names=names)


def of_count(source: Source, classes: int, field: str) -> Source:
    """The same examples, as of so many classes; images without labels as they are.

    Raises:
      ConfigError: a label is beyond them, or the set names fewer or more.
    """
    if not source.classes:
        return source
    named, want = len(source.names), f"{classes} classes (data.classes)"
    require(not named or named == classes, field, want, f"the names of {named}")
    place = int(source.labels.argmax())
    highest = int(source.labels[place])
    got = f"{highest} ({source.name_of(place)})"
    require(highest < classes, field, f"labels below {want}", got)
    return dataclasses.replace(source, classes=classes)


def at_channels(source: Source, channels: int) -> Source:
    """The same examples, every image made grey (1) or RGB (3). 0 changes nothing."""
    if channels in (0, source.shape[2]):
        return source
    return dataclasses.replace(
        source,
        read=lambda place: pictures.with_channels(source.read(place), channels),
        shape=(*source.shape[:2], channels),
        images=None,
    )


def at_size(source: Source, store: int) -> Source:
    """The same examples, every whole image resized to a square of `store` pixels.

    The aspect is not kept: a box in shares of height and width cuts the same out of
    the square as out of the original. `store` 0 changes nothing.
    """
    if not store:
        return source
    shape = (store, store, source.shape[2])
    return dataclasses.replace(source, shape=shape, resizes=True, images=None)


def join(parts: Sequence[Source], field: str = "join") -> Source:
    """Several whole splits one after another.

    The ids of each part are moved up by the lengths of the parts before it. Labels keep
    their numbers, so parts with labels must have the same number of classes, and those
    that know the names of their classes the same names in the same order.

    Raises:
      ConfigError: parts of different channels, shapes, names or numbers of classes.
    """
    require(len(parts) > 0, field, "at least one source", len(parts))
    first = parts[0]
    for part in parts[1:]:
        same = part.resizes == first.resizes and part.shape == first.shape
        want = f"images of one shape {first.shape} (data.store, data.channels)"
        require(same, field, want, part.shape)
    labelled = [part for part in parts if (part.labels >= 0).any()]
    named = [part.names for part in labelled if part.names]
    for names in named[1:]:
        want = "parts with the same classes in the same order"
        check_same_names(named[0], names, field, want)
    classes = {part.classes for part in labelled}
    want = "labels of the same number of classes"
    require(len(classes) <= 1, field, want, sorted(classes))
    starts = np.cumsum([0, *(len(part) for part in parts)])
    lengths = [int(part.ids.max(initial=-1)) + 1 for part in parts]
    offsets = np.cumsum([0, *lengths[:-1]])
    ids = [part.ids + o for part, o in zip(parts, offsets, strict=True)]

    def find(place: int) -> tuple[Source, int]:
        number = int(np.searchsorted(starts, place, side="right")) - 1
        return parts[number], place - int(starts[number])

    def read(place: int) -> np.ndarray:
        part, place = find(place)
        return part.read(place)

    def name_of(place: int) -> str:
        part, place = find(place)
        return part.name_of(place)

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
    first: Sequence[str], other: Sequence[str], field: str, want: str
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

    raise ConfigError(
        f"{field}: expected {want}, got {shown(first)} and {shown(other)}"
    )


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
    for place in range(min(count, 16)):
        try:
            height, width, channels = read(place).shape
            return height, width, channels
        except pictures.ImageError as problem:
            error = error or problem
    text = f"{field}: expected images, the first {min(count, 16)} cannot be read"
    raise ConfigError(f"{text}: {error}")


def refuse_url(path: str, field: str) -> None:
    """Image files are read from this machine; nothing would be found at a URL."""
    want = "a folder on this machine (a bucket can be mounted as one)"
    require("://" not in path, field, want, path)


def check_rows(source: Source, field: str) -> None:
    """Refuse a source whose ids or labels cannot be those of examples.

    Raises:
      ConfigError: naming `field` and what is wrong with which of them.
    """
    n, ids, labels = len(source), source.ids, source.labels
    require(ids.shape == (n,), f"{field} ids", f"{n}, one an example", list(ids.shape))
    once = len(np.unique(ids)) == n
    require(once, f"{field} ids", "another id for every example", "some twice")
    low, high = int(labels.min(initial=0)), int(labels.max(initial=-1))
    want = f"labels in [-1, {source.classes})"
    ok = UNLABELLED <= low and high < max(source.classes, 0)
    require(ok, f"{field} labels", want, f"{low} to {high}")


def check_labelled(source: Source, field: str) -> None:
    """Refuse images without labels, before labels are learnt from or measured on.

    Raises:
      ConfigError: naming `field` and how many have none.
    """
    missing = int((source.labels < 0).sum())
    want = "a label for every image, where labels are used"
    require(missing == 0, field, want, f"{missing} of {len(source)} without")
