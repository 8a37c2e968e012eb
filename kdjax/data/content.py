"""What a data set holds, as text that changes when it does."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

# Of a larger set a sample of about so many bytes is looked at.
LIMIT = 2**30
# Files are read in pieces of so many bytes at most.
PIECE = 2**20
# Items that a thread takes at a time.
CHUNK = 64
THREADS = 8


def of_files(files: Sequence[str | os.PathLike], names: Sequence[str]) -> str:
    """64 hex digits of files: of their names and sizes, and of what they hold.

    All bytes count where there are at most `LIMIT` (1 GiB) in all; of more, every k-th
    piece of `PIECE` bytes or, if it is smaller, every k-th file, about `LIMIT` in all:
    a change elsewhere that keeps all names and sizes is not seen. A file that cannot be
    read counts as that; decoding says so.

    Args:
      files: where they are.
      names: what they are called wherever they are.
    """
    sizes = [_size(file) for file in files]
    sha = hashlib.sha256()
    for name, size in zip(names, sizes, strict=True):
        sha.update(f"{name}\0{size}\0".encode())
    pieces = [
        (file, start)
        for file, size in zip(files, sizes, strict=True)
        for start in range(0, size, PIECE)
    ]
    step = -(-sum(sizes) // LIMIT) or 1
    sha.update(_of_each(_piece, pieces[::step]))
    return sha.hexdigest()


def of_images(read: Callable[[int], bytes], count: int, each: int) -> str:
    """64 hex digits of images that are no files: of all pixels, or of those of every
    k-th image so that there are about `LIMIT` bytes.

    Args:
      read: `place -> bytes`.
      count: how many there are.
      each: bytes of a usual one.
    """
    step = -(-count * each // LIMIT) or 1
    return hashlib.sha256(_of_each(read, range(0, count, step))).hexdigest()


def _of_each(read: Callable, items: Sequence) -> bytes:
    """A digest for each of the items, which are read in threads."""

    def some(start: int) -> bytes:
        found = (read(item) for item in items[start : start + CHUNK])
        return b"".join(hashlib.sha256(x).digest() for x in found)

    with ThreadPoolExecutor(THREADS) as pool:
        return b"".join(pool.map(some, range(0, len(items), CHUNK)))


def _size(file: str | os.PathLike) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _piece(piece: tuple[str | os.PathLike, int]) -> bytes:
    file, start = piece
    try:
        with open(file, "rb") as stream:
            stream.seek(start)
            return stream.read(PIECE)
    except OSError as error:
        return type(error).__name__.encode()
