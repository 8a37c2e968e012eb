"""Records of named arrays on disk, in blocks with checksums: TensorStore's zarr3.

A block is written whole, and the checksums of its records last. So a block that an
interruption left half-done counts as missing. A checksum covers the record, its index
and the whole manifest: records of another store do not pass.

A path is a folder, or a URL of TensorStore (`gs://bucket/path`). Several processes may
write different blocks at once.
"""

import json
import pathlib
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from kdjax.cache.manifest_file import (
    StoreError,
    checksum_manifest,
    find_differences,
    list_names,
    read_manifest,
    write_manifest,
)
from kdjax.core.stored_files import locate, open_files, short

# Name on disk of the array of the records' checksums.
_CHECKSUMS = "mark"
_REPAIR = "`kdjax cache-targets` with the same options repairs it"


class Column(NamedTuple):
    """One array of a store: the shape of a record, and a dtype by its NumPy name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one record."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Store(NamedTuple):
    """An open store.

    manifest: what its records depend on, and their `layout`.
    arrays: `[records, ...]` each, and `mark` `[records]`, the checksums; 0 where a
        record is missing.
    block: records that are written and checked together.
    """

    path: str
    manifest: dict[str, Any]
    arrays: dict[str, ts.TensorStore]
    records: int
    block: int

    @property
    def columns(self) -> dict[str, Column]:
        """The arrays by name, without their checksums."""
        return _columns(self.manifest["layout"])

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.records // self.block)

    @property
    def nbytes(self) -> int:
        """Bytes of all records, without checksums and file headers."""
        return self.records * sum(x.nbytes for x in self.columns.values())

    def first(self, records: int) -> "Store":
        """The store cut to its first records."""
        return self._replace(records=records)

    def span(self, block: int) -> slice:
        """The records of a block."""
        return slice(block * self.block, min((block + 1) * self.block, self.records))

    def write(self, block: int, values: Mapping[str, np.ndarray]) -> None:
        """Write one block, `{name: [records of the block, ...]}`.

        Raises StoreError where the disk is full or read-only. Earlier blocks stay.
        """
        records = self.span(block)
        exact = {k: np.asarray(v, self.arrays[k].dtype.name) for k, v in values.items()}
        try:
            pending = [self._put(k, records, v) for k, v in exact.items()]
            for write in pending:
                write.result()
            checksums = self._checksum_records(records, exact)
            self._put(_CHECKSUMS, records, checksums).result()
        except (ValueError, OSError) as error:
            raise StoreError(f"{self.path}: cannot write: {short(error)}") from error

    def _put(self, name: str, records: slice, values: np.ndarray) -> ts.WriteFutures:
        """Write a whole chunk, the last one padded with zeros.

        A part of a chunk would first read the old one, which may be damaged.
        """
        if len(values) != records.stop - records.start:
            text = f"{name}: {len(values)} records for {_format_records(records)}"
            raise ValueError(text)
        whole = np.zeros((self.block, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        chunk = slice(records.start, records.start + self.block)
        return self.arrays[name][chunk].write(whole)

    def read(self, records: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Some records of every array, `{name: [records, ...]}`.

        Raises StoreError naming the array where a chunk fails its checksum, is cut
        off, or was never written, and where records are not of this store.
        """
        pending = {k: array[records].read() for k, array in self.arrays.items()}
        checksums = self._wait(_CHECKSUMS, pending.pop(_CHECKSUMS))
        span = _format_records(records)
        if not checksums.all():
            raise StoreError(f"{self.path}: unfinished, records {span} are missing")
        values = {name: self._wait(name, read) for name, read in pending.items()}
        if not np.array_equal(checksums, self._checksum_records(records, values)):
            raise StoreError(
                f"{self.path}: records {span} are damaged or of another store; "
                f"{_REPAIR}"
            )
        return values

    def _checksum_records(
        self, records: slice | np.ndarray, values: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """A number above 0 for each record, `[records]` uint32."""
        start = checksum_manifest(self.manifest)
        span = isinstance(records, slice)
        indices = range(records.start, records.stop) if span else records
        indices = np.asarray(indices, "<i8")
        checksums = np.zeros(len(indices), np.uint32)
        columns = [np.ascontiguousarray(values[name]) for name in sorted(values)]
        for i, index in enumerate(indices):
            checksum = zlib.crc32(index.tobytes(), start)
            for column in columns:
                checksum = zlib.crc32(column[i].tobytes(), checksum)
            # 0 stands for a missing record.
            checksums[i] = checksum or 1
        return checksums

    def _wait(self, name: str, read: ts.Future) -> np.ndarray:
        try:
            return np.asarray(read.result())
        except (ValueError, OSError) as error:
            raise StoreError(
                f"{self.path}: damaged chunk of {name!r} ({short(error)}); {_REPAIR}"
            ) from error

    def unfinished(self) -> list[slice]:
        """Spans of the records that were never written; no checksum is compared."""
        read = self.arrays[_CHECKSUMS][: self.records].read()
        missing = np.flatnonzero(self._wait(_CHECKSUMS, read) == 0)
        spans = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1)
        return [slice(int(x[0]), int(x[-1]) + 1) for x in spans if len(x)]

    def missing(self) -> list[int]:
        """The blocks that are missing or do not pass their checksums.

        Reads everything: every other block can be trusted.
        """

        def bad(block: int) -> bool:
            try:
                self.read(self.span(block))
            except StoreError:
                return True
            return False

        return [block for block in range(self.blocks) if bad(block)]


def create_store(
    path: str | pathlib.Path,
    manifest: Mapping[str, Any],
    columns: Mapping[str, Column],
    *,
    records: int,
    block: int,
) -> Store:
    """Make an empty store, or open an existing one of the same manifest.

    block: records of a block; an existing store keeps its own.

    Raises StoreError naming the field in which an existing store differs, or where
    nothing can be written.
    """
    existing = read_manifest(path)
    layout = {
        "arrays": {k: [list(v.shape), v.dtype] for k, v in columns.items()},
        "rows": records,
        "block": existing["layout"]["block"] if existing else block,
    }
    whole = {**json.loads(json.dumps(dict(manifest))), "layout": layout}
    if existing is None:
        if list_names(path):
            raise StoreError(
                f"{path}: expected an empty folder or a store, it has files and no "
                "manifest.json to identify them; remove it, or choose another"
            )
        write_manifest(path, whole)
    return open_store(path, whole, repair=True)


def open_store(
    path: str | pathlib.Path,
    expected: Mapping[str, Any] | None = None,
    *,
    unknown: Collection[str] = (),
    repair: bool = False,
) -> Store:
    """Open a store, whose manifest must have the fields of `expected` and no others.

    Not compared are `layout`, where `expected` has none, and the fields `unknown`, as
    "teacher.variables".

    repair: write the metadata of an array again where it is damaged or lost. Nothing
        is written otherwise.

    Raises StoreError naming the folder, and of each field that differs the expected and
    the stored value.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise StoreError(f"{path}: expected a store, it has no manifest.json")
    layout = manifest["layout"]
    wrong = []
    if expected is not None:
        wrong = find_differences({"layout": layout, **expected}, manifest, unknown)
    if wrong:
        raise StoreError(f"{path}: " + "; ".join(wrong))
    records, block = layout["rows"], layout["block"]
    columns = {**_columns(layout), _CHECKSUMS: Column((), "uint32")}
    arrays = {
        name: _open(path, name, _metadata(column, records, block), repair)
        for name, column in columns.items()
    }
    return Store(str(path), manifest, arrays, records, block)


def _columns(layout: Mapping[str, Any]) -> dict[str, Column]:
    arrays = layout["arrays"].items()
    return {k: Column(tuple(shape), dtype) for k, (shape, dtype) in arrays}


def _metadata(column: Column, records: int, block: int) -> dict[str, Any]:
    floating = not np.issubdtype(np.dtype(column.dtype), np.integer)
    grid = {"chunk_shape": [block, *column.shape]}
    return {
        # Whole chunks, so that each can be written without being read.
        "shape": [-(-records // block) * block, *column.shape],
        "chunk_grid": {"name": "regular", "configuration": grid},
        "data_type": column.dtype,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "fill_value": "NaN" if floating else 0,
    }


def _open(
    path: str | pathlib.Path, name: str, metadata: dict[str, Any], repair: bool
) -> ts.TensorStore:
    spec: dict[str, Any] = {
        "driver": "zarr3",
        "kvstore": locate(path, name),
        "metadata": metadata,
    }
    if name != _CHECKSUMS:
        # A missing chunk is an error, never a chunk of zeros.
        spec["fill_missing_data_reads"] = False
        spec["store_data_equal_to_fill_value"] = True
    try:
        return ts.open(spec, open=True, create=repair).result()
    except ValueError as error:
        text = f"{path}: cannot open {name!r}: {short(error)}"
        if not repair:
            raise StoreError(f"{text}; {_REPAIR}") from error
    try:
        open_files(path).write(f"{name}/zarr.json", None).result()
        return ts.open(spec, open=True, create=True).result()
    except ValueError as error:
        raise StoreError(text) from error


def _format_records(records: slice | np.ndarray) -> str:
    if isinstance(records, slice):
        return f"{records.start} to {records.stop - 1}"
    return f"{int(records.min())} to {int(records.max())}"
