"""Image files in folders: PATH/split/class/*.jpg, a class per folder."""

import functools
import pathlib
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kdjax.config import ConfigError, require, require_local
from kdjax.core.fingerprint import fingerprint_files
from kdjax.data import images as pictures
from kdjax.data.source import UNLABELED, LazySplits, Source, first_shape

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Files of a split whose headers are read for the warning of gray images.
_SAMPLE = 64


class _Depth(NamedTuple):
    """Channels of all images, and the first image where that decided them."""

    channels: int
    first: str = ""


def load(
    path: str,
    channels: int = 0,
    field: str = "data.name",
    used: Collection[str] = (),
) -> Mapping[str, Source]:
    """A source for each folder in PATH, made and read on demand.

    Classes are the names of the class folders of the splits in use, sorted; a split may
    lack some. With `channels` 0 the first image decides: gray ones among color become
    RGB, color among gray is an error when it is read. A split that holds its images
    itself has no labels. Files whose name does not end in .jpg, .jpeg, .png, .webp or
    .bmp, hidden ones and folders within class folders are ignored.

    Args:
      used: names of the splits in use; other folders define no classes. By default all.

    Raises:
      ConfigError: no such folder, two splits without a class in common; on demand: no
        image in a split or a class folder, or images beside class folders.
    """
    require(bool(path.strip()), field, "folder:PATH", f"folder:{path}")
    require_local(path, field)
    root = pathlib.Path(path).expanduser()
    field = f"{field} ({root})"
    require(root.is_dir(), field, "a folder PATH/split/class/*.jpg", "no folder")
    splits = _folders(root)
    require(bool(splits), field, "a folder for each split", "none")
    in_use = [split for split in splits if not used or split.name in used]
    number = {name: i for i, name in enumerate(_classes(in_use))}
    depth = _Depth(channels) if channels else _first_depth(in_use)
    names = [split.name for split in splits]
    return LazySplits(names, lambda name: _split(root, root / name, number, depth))


def _classes(splits: list[pathlib.Path]) -> list[str]:
    """The names of all class folders, sorted. Splits must have some in common: folders
    of `images` in place of classes would become a class otherwise."""
    each = {split: {inner.name for inner in _folders(split)} for split in splits}
    labeled = {split: names for split, names in each.items() if names}
    for split, names in labeled.items():
        for other, others in labeled.items():
            if not names & others and len(names) <= len(others):
                expected = f"class folders as in {other} ({_shorten(others)})"
                raise ConfigError(str(split), expected, shown=_shorten(names))
    return sorted(set().union(*each.values()))


def _shorten(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _split(
    root: pathlib.Path,
    split: pathlib.Path,
    number: dict[str, int],
    depth: _Depth,
) -> Source:
    files = _images(split)
    inner = _folders(split)
    if files and inner:
        both = f"both ({files[0].name} beside {inner[0].name})"
        raise ConfigError(str(split), "images or class folders", shown=both)
    labels = [UNLABELED] * len(files)
    other = next((kind.name for kind in inner if kind.name not in number), "")
    expected = f"class folders of the splits in use ({_shorten(number)})"
    require(not other, str(split), expected, other)
    for kind in inner:
        class_files = _images(kind)
        if not class_files:
            expected = f"images ({', '.join(SUFFIXES)}) in every class folder"
            advice = "remove the folder if this split has no examples of the class"
            deeper = [folder.name for folder in _folders(kind) if _images(folder)]
            if deeper:
                advice = f"move those of {kind.name}/{deeper[0]} up"
            got = f"{_list_contents(kind)}; {advice}"
            raise ConfigError(str(kind), expected, shown=got)
        files += class_files
        labels += [number[kind.name]] * len(class_files)
    require(bool(files), str(split), "images or class folders", "none")
    names = [str(file.relative_to(root)) for file in files]
    channels = depth.channels
    if depth.first:
        _warn_of_gray(files, split, depth)

    def read(index: int) -> np.ndarray:
        like = depth.first if channels == 1 else ""
        return pictures.decode(files[index], channels, str(files[index]), like)

    @functools.cache
    def content() -> str:
        return f"{channels} {fingerprint_files(files, names)}"

    return Source(
        read=read,
        labels=np.array(labels, np.int32),
        ids=np.arange(len(files), dtype=np.int32),
        classes=len(number) if inner else 0,
        shape=first_shape(read, len(files), str(split)),
        resizes=False,
        name_of=lambda index: str(files[index]),
        content=content,
        names=tuple(number) if inner else (),
    )


def _first_depth(splits: list[pathlib.Path]) -> _Depth:
    """The first image decides for all. Gray images among color lose nothing; color
    among gray is refused where it is found."""
    for split in splits:
        for inner in (split, *_folders(split)):
            for file in _images(inner):
                try:
                    depth = pictures.decode(file, 0, str(file)).shape[2]
                    return _Depth(depth, str(file))
                except pictures.ImageError:
                    continue
    return _Depth(3)


def _warn_of_gray(files: list[pathlib.Path], split: pathlib.Path, depth: _Depth):
    """Warn of a split of gray images in a folder that counts as RGB.

    A few gray images are usual in sets of photographs. Headers of an evenly spread
    sample are read, since a set may have a million files.
    """
    sample = files[:: -(-len(files) // _SAMPLE)]
    found = [pictures.stored_channels(file) for file in sample]
    if depth.channels == 3 and 2 * found.count(1) > len(found):
        text = pictures.format_conversion(found, 3)
        advice = f"as {depth.first} (data.channels 1 makes all gray, 3 is silent)"
        warnings.warn(f"{split}: {text}, {advice}", stacklevel=2)


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    for p in path.iterdir():
        # One with the name of an image is decoded, and fails by name.
        lost = p.is_symlink() and not p.exists() and p.suffix.lower() not in SUFFIXES
        ok = not lost or p.name.startswith(".")
        require(ok, str(p), "a folder or a file", "a link to nothing")
    inner = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(inner, key=lambda p: p.name)


def _list_contents(path: pathlib.Path) -> str:
    """The contents of a folder without images, for an error message."""
    names = [p.name for p in path.iterdir() if not p.name.startswith(".")]
    return f"only {_shorten(names)}" if names else "an empty folder"


def _images(path: pathlib.Path) -> list[pathlib.Path]:
    files = (
        p
        for p in path.iterdir()
        # A link to nothing is an image that cannot be read.
        if p.suffix.lower() in SUFFIXES
        and not p.name.startswith(".")
        and not p.is_dir()
    )
    return sorted(files, key=lambda p: p.name)
