"""Fingerprints: hexadecimal digits that change with arrays, shapes, files or code.

They stand in the `config.json` of run folders and in the manifests of target caches.
So the digits of the same input must stay the same from version to version.
"""

import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from kdjax.core import hosts
from kdjax.core.safe_read import require_regular
from kdjax.core.types import PyTree

# Larger data sets are sampled: about so many bytes are read.
LIMIT = 2**30
# Largest number of bytes that are read at a time.
PIECE = 2**20
# Items that a thread takes at a time.
CHUNK = 64
THREADS = 8


def fingerprint_bytes(*parts: bytes | memoryview, digits: int = 16) -> str:
    """Fingerprint of bytes: the first digits of the SHA-256 of all parts together.

    Args:
      parts: `bytes`, or contiguous buffers such as the `data` of an array.
      digits: at most 64.
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()[:digits]


def fingerprint_arrays(tree: PyTree) -> str:
    """Fingerprint of arrays: 16 digits of their values, dtypes and shapes, in order.

    Every process of a run must call it, as arrays may be sharded over several hosts.
    """
    sha = hashlib.sha256()
    # One array at a time is copied to the host.
    for leaf in jax.tree.leaves(tree):
        x = np.ascontiguousarray(hosts.fetch_global(leaf))
        sha.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return sha.hexdigest()[:16]


def fingerprint_shapes(tree: PyTree) -> str:
    """Fingerprint of shapes: 16 digits of the names, dtypes and shapes in a tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    lines = [f"{jax.tree_util.keystr(path)} {x.dtype}{x.shape}" for path, x in leaves]
    return fingerprint_bytes("\n".join(lines).encode())


def is_abstract(tree: PyTree) -> bool:
    """True for a tree with shapes in place of arrays, which has no values to hash."""
    leaves = jax.tree.leaves(tree)
    return any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)


def fingerprint_code(name: str, *sources: bytes) -> str:
    """Fingerprint of source code: the name, and 16 digits of all sources together."""
    return f"{name} {fingerprint_bytes(*sources)}"


def fingerprint_function(function: Callable[..., Any]) -> str:
    """Fingerprint of a function by its source; by its name alone where there is none.

    Calls of other functions in it are not followed.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        source = inspect.getsource(inspect.unwrap(function)).encode()
    except (OSError, TypeError):
        source = b""
    return fingerprint_code(name, source)


def fingerprint_files(files: Sequence[str | os.PathLike], names: Sequence[str]) -> str:
    """Fingerprint of files: 64 digits of their names, sizes and bytes.

    Up to `LIMIT` (1 GiB) all bytes are read. Of more, every k-th piece of `PIECE` bytes
    is read, about `LIMIT` in all; a smaller file is one piece. A change between these
    pieces that keeps all names and sizes goes unnoticed. A file that cannot be read
    counts with the name of the error; decoding it reports the error.

    Args:
      files: paths.
      names: the same files by names that stay when their folder is moved.
    """
    sizes = [_size(file) for file in files]
    header = (
        f"{name}\0{size}\0".encode() for name, size in zip(names, sizes, strict=True)
    )
    pieces = [
        (file, start)
        for file, size in zip(files, sizes, strict=True)
        for start in range(0, size, PIECE)
    ]
    step = -(-sum(sizes) // LIMIT) or 1
    return fingerprint_bytes(*header, _hash_each(_piece, pieces[::step]), digits=64)


def fingerprint_images(read: Callable[[int], bytes], count: int, size: int) -> str:
    """Fingerprint of decoded images: 64 digits of all their pixels.

    Of more than `LIMIT` bytes, every k-th image is read, about `LIMIT` in all.

    Args:
      read: `index -> bytes`.
      count: number of images.
      size: bytes of a typical image.
    """
    step = -(-count * size // LIMIT) or 1
    return fingerprint_bytes(_hash_each(read, range(0, count, step)), digits=64)


def _hash_each(read: Callable, items: Sequence) -> bytes:
    """SHA-256 of each item, which is read in threads."""

    def hash_chunk(start: int) -> bytes:
        contents = (read(item) for item in items[start : start + CHUNK])
        return b"".join(hashlib.sha256(x).digest() for x in contents)

    with ThreadPoolExecutor(THREADS) as pool:
        return b"".join(pool.map(hash_chunk, range(0, len(items), CHUNK)))


def _size(file: str | os.PathLike) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _piece(piece: tuple[str | os.PathLike, int]) -> bytes:
    file, start = piece
    try:
        require_regular(file)
        with open(file, "rb") as stream:
            stream.seek(start)
            return stream.read(PIECE)
    except OSError as error:
        return type(error).__name__.encode()
