"""Image files in folders: PATH/split/class/*.jpg, a class per folder."""

import functools
import pathlib

import numpy as np

from kdjax.config import ConfigError, require, require_local
from kdjax.core.fingerprint import fingerprint_files
from kdjax.data import images as pictures
from kdjax.data.source import UNLABELED, Source, first_shape

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def load(path: str, channels: int = 0, field: str = "data.name") -> dict[str, Source]:
    """A source for each folder in PATH, read on demand.

    Classes are the names of the class folders of all splits, sorted; a split may lack
    some. With `channels` 0 the first image decides: gray ones among color become RGB,
    color among gray is an error when it is read. A split that holds its images itself
    has no labels. Files whose name does not end in .jpg, .jpeg, .png, .webp or .bmp,
    hidden ones and folders within class folders are ignored.

    Raises:
      ConfigError: no such folder, no image in a split or a class folder, or images
        beside class folders.
    """
    require_local(path, field)
    root = pathlib.Path(path).expanduser()
    field = f"{field} ({root})"
    require(root.is_dir(), field, "a folder PATH/split/class/*.jpg", "no folder")
    splits = _folders(root)
    require(bool(splits), field, "a folder for each split", "none")
    classes = sorted({inner.name for split in splits for inner in _folders(split)})
    number = {name: i for i, name in enumerate(classes)}
    like = ""
    if not channels:
        channels, like = _channels(splits)
    depth = channels, like
    return {split.name: _split(root, split, number, depth) for split in splits}


def _split(
    root: pathlib.Path,
    split: pathlib.Path,
    number: dict[str, int],
    depth: tuple[int, str],
) -> Source:
    files = _images(split)
    inner = _folders(split)
    if files and inner:
        both = f"both ({files[0].name} beside {inner[0].name})"
        raise ConfigError(str(split), "images or class folders", shown=both)
    labels = [UNLABELED] * len(files)
    for kind in inner:
        class_files = _images(kind)
        if not class_files:
            expected = f"images ({', '.join(SUFFIXES)}) in every class folder"
            advice = "remove the folder if this split has no examples of the class"
            got = f"{_list_contents(kind)}; {advice}"
            raise ConfigError(str(kind), expected, shown=got)
        files += class_files
        labels += [number[kind.name]] * len(class_files)
    require(bool(files), str(split), "images or class folders", "none")
    names = [str(file.relative_to(root)) for file in files]

    channels, like = depth

    def read(index: int) -> np.ndarray:
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


def _channels(splits: list[pathlib.Path]) -> tuple[int, str]:
    """The first image decides for all: 3, or 1 and its name. Gray images among color
    lose nothing; color among gray is refused where it is found."""
    for split in splits:
        for inner in (split, *_folders(split)):
            for file in _images(inner):
                try:
                    depth = pictures.decode(file, 0, str(file)).shape[2]
                    return depth, str(file) if depth == 1 else ""
                except pictures.ImageError:
                    continue
    return 3, ""


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
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    more = ", ..." if len(names) > 3 else ""
    return f"only {', '.join(names[:3])}{more}" if names else "an empty folder"


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
