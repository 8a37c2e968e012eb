"""Rows of named arrays on disk, in blocks with checksums: TensorStore's zarr3.

A block is written whole and its rows are marked last, so that what an interruption left
half-done counts as missing. A mark is a checksum over the row, its place and the whole
manifest: rows of another store do not pass. A path is a folder, or a URL that
TensorStore knows (`gs://bucket/path`); several processes may write different blocks at
once.
"""

import json
import pathlib
import re
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

_MARK = "mark"
_LOST = "what the store is of cannot be known: remove it, or choose another path"
# Of the manifest itself, in it.
_SEAL = "checksum"
_MEND = "`kdjax cache-targets` with the same options mends it"


class StoreError(ValueError):
    """A store is missing, of something else, damaged, or cannot be written."""


class Rows(NamedTuple):
    """One array of a store: the shape of a row, and a dtype by its NumPy name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Store(NamedTuple):
    """An open store; `manifest` says what it is of.

    arrays: `[rows, ...]` each, and `mark` `[rows]`, 0 where a row is not there.
    block: rows that are written and checked together.
    """

    path: str
    manifest: dict[str, Any]
    arrays: dict[str, ts.TensorStore]
    rows: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block)

    @property
    def nbytes(self) -> int:
        """Of all rows when they are there, marks and file headers aside."""
        layout = self.manifest["layout"]["arrays"].values()
        return self.rows * sum(Rows(tuple(x), dtype).nbytes for x, dtype in layout)

    def first(self, rows: int) -> "Store":
        """The same store, as if it held so many of its rows."""
        return self._replace(rows=rows)

    def span(self, block: int) -> slice:
        """The rows of a block."""
        return slice(block * self.block, min((block + 1) * self.block, self.rows))

    def write(self, block: int, values: Mapping[str, np.ndarray]) -> None:
        """Write one block, `{name: [rows of the block, ...]}`.

        Raises StoreError where the disk is full or read-only; what was written before
        stays.
        """
        rows = self.span(block)
        exact = {k: np.asarray(v, self.arrays[k].dtype.name) for k, v in values.items()}
        try:
            pending = [self._put(k, rows, v) for k, v in exact.items()]
            for write in pending:
                write.result()
            self._put(_MARK, rows, self._marks(rows, exact)).result()
        except (ValueError, OSError) as error:
            raise StoreError(f"{self.path}: cannot write: {_short(error)}") from error

    def _put(self, name: str, rows: slice, values: np.ndarray) -> ts.WriteFutures:
        """Write a chunk whole, the last one with zeros behind it, so that what was
        there, perhaps damaged, is not read."""
        if len(values) != rows.stop - rows.start:
            raise ValueError(f"{name}: {len(values)} rows for {_said(rows)}")
        whole = np.zeros((self.block, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        return self.arrays[name][rows.start : rows.start + self.block].write(whole)

    def read(self, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Some rows of every array, `{name: [rows, ...]}`.

        Raises StoreError naming the array where a chunk fails its checksum, is cut
        off, or was never written, and where rows are not of this store.
        """
        pending = {k: array[rows].read() for k, array in self.arrays.items()}
        marks = self._wait(_MARK, pending.pop(_MARK))
        if not marks.all():
            raise StoreError(f"{self.path}: unfinished, rows {_said(rows)} are missing")
        found = {name: self._wait(name, read) for name, read in pending.items()}
        if not np.array_equal(marks, self._marks(rows, found)):
            raise StoreError(
                f"{self.path}: rows {_said(rows)} are damaged or of another store; "
                f"{_MEND}"
            )
        return found

    def _marks(
        self, rows: slice | np.ndarray, values: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """A number above 0 for each row, `[rows]` uint32."""
        seal = _checksum(self.manifest)
        span = isinstance(rows, slice)
        places = np.asarray(range(rows.start, rows.stop) if span else rows, "<i8")
        marks = np.zeros(len(places), np.uint32)
        columns = [np.ascontiguousarray(values[name]) for name in sorted(values)]
        for i, place in enumerate(places):
            mark = zlib.crc32(place.tobytes(), seal)
            for column in columns:
                mark = zlib.crc32(column[i].tobytes(), mark)
            marks[i] = mark or 1
        return marks

    def _wait(self, name: str, read: ts.Future) -> np.ndarray:
        try:
            return np.asarray(read.result())
        except (ValueError, OSError) as error:
            raise StoreError(
                f"{self.path}: damaged chunk of {name!r} ({_short(error)}); {_MEND}"
            ) from error

    def unfinished(self) -> list[slice]:
        """The rows that were never written, in spans; what is there is not checked."""
        marks = self._wait(_MARK, self.arrays[_MARK][: self.rows].read())
        gone = np.flatnonzero(marks == 0)
        spans = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1)
        return [slice(int(x[0]), int(x[-1]) + 1) for x in spans if len(x)]

    def missing(self) -> list[int]:
        """The blocks that are not there or do not pass their checksums.

        Reads everything: what it does not name can be trusted.
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
    arrays: Mapping[str, Rows],
    *,
    rows: int,
    block: int,
) -> Store:
    """Make an empty store, or open the one of the same manifest that is there.

    block: rows of a block; one that is there keeps its own.

    Raises StoreError naming the field in which a store that is there differs, or where
    nothing can be written.
    """
    known = read_manifest(path)
    layout = {
        "arrays": {k: [list(v.shape), v.dtype] for k, v in arrays.items()},
        "rows": rows,
        "block": known["layout"]["block"] if known else block,
    }
    whole = {**json.loads(json.dumps(dict(manifest))), "layout": layout}
    if known is None:
        if _names(path):
            raise StoreError(
                f"{path}: expected an empty folder or a store, it has files and no "
                "manifest.json to say what they are of; remove it, or choose another"
            )
        _write_manifest(path, whole)
    return open_store(path, whole, mend=True)


def open_store(
    path: str | pathlib.Path,
    expected: Mapping[str, Any] | None = None,
    *,
    unknown: Collection[str] = (),
    mend: bool = False,
) -> Store:
    """Open a store, whose manifest must have the fields of `expected` and no others.

    Not compared are `layout`, where `expected` has none, and the fields `unknown`, as
    "teacher.variables".

    mend: write again what says how an array is laid out, where it is damaged.

    Raises StoreError naming the folder, and of each field that differs what was
    expected and what is there.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise StoreError(f"{path}: expected a store, it has no manifest.json")
    layout = manifest["layout"]
    wrong = []
    if expected is not None:
        wrong = _differences({"layout": layout, **expected}, manifest, unknown)
    if wrong:
        raise StoreError(f"{path}: " + "; ".join(wrong))
    rows, block = layout["rows"], layout["block"]
    columns = {k: Rows(tuple(shape), d) for k, (shape, d) in layout["arrays"].items()}
    columns[_MARK] = Rows((), "uint32")
    arrays = {
        name: _open(path, name, _metadata(column, rows, block), mend)
        for name, column in columns.items()
    }
    return Store(str(path), manifest, arrays, rows, block)


def read_manifest(path: str | pathlib.Path) -> dict[str, Any] | None:
    """What a store is of; None where there is no store."""
    try:
        text = _kvstore(path, _FIRST).read("manifest.json").result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot read: {_short(error)}") from error
    if text.state == "missing":
        return None
    try:
        manifest = json.loads(text.value)
    except ValueError as error:
        text = f"{path}: manifest.json is damaged: {error}; {_LOST}"
        raise StoreError(text) from error
    if isinstance(manifest, dict) and _SEAL in manifest:
        sealed = manifest.pop(_SEAL) == _checksum(manifest)
        if not sealed:
            text = f"{path}: manifest.json is damaged, its {_SEAL} differs; {_LOST}"
            raise StoreError(text)
    layout = manifest.get("layout") if isinstance(manifest, dict) else None
    if not _is_layout(layout):
        raise StoreError(f"{path}: expected a store, its manifest.json is no store's")
    return manifest


def _is_layout(layout: Any) -> bool:
    if not isinstance(layout, dict) or not isinstance(layout.get("arrays"), dict):
        return False
    counts = [layout.get("rows"), layout.get("block")]
    arrays = [x for x in layout["arrays"].values() if _is_column(x)]
    whole = 0 < len(arrays) == len(layout["arrays"])
    return whole and all(isinstance(n, int) and n > 0 for n in counts)


def _is_column(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return pair and isinstance(value[0], list) and isinstance(value[1], str)


def _checksum(manifest: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _names(path: str | pathlib.Path) -> list[bytes]:
    try:
        return _kvstore(path).list().result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot read: {_short(error)}") from error


def _write_manifest(path: str | pathlib.Path, manifest: Mapping[str, Any]) -> None:
    sealed = {**manifest, _SEAL: _checksum(manifest)}
    text = json.dumps(sealed, indent=2, sort_keys=True) + "\n"
    try:
        _kvstore(path).write("manifest.json", text.encode()).result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot write: {_short(error)}") from error


def _place(path: str | pathlib.Path, name: str = "") -> str | dict[str, str]:
    if "://" in str(path):
        return "/".join(part for part in (str(path).rstrip("/"), name) if part) + "/"
    folder = pathlib.Path(path).expanduser().absolute() / name
    return {"driver": "file", "path": f"{folder}/"}


# A bucket that cannot be reached at first is said in seconds; once it was, TensorStore
# may try again for as long as it likes.
_RETRIES = {"max_retries": 3, "initial_delay": "500ms"}
_FIRST = {"gcs_request_retries": _RETRIES, "s3_request_retries": _RETRIES}


def _kvstore(
    path: str | pathlib.Path, context: Mapping[str, Any] | None = None
) -> ts.KvStore:
    return ts.KvStore.open(_place(path), context=ts.Context(context or {})).result()


def _metadata(column: Rows, rows: int, block: int) -> dict[str, Any]:
    floating = not np.issubdtype(np.dtype(column.dtype), np.integer)
    grid = {"chunk_shape": [block, *column.shape]}
    return {
        # Whole chunks, so that each can be written without being read.
        "shape": [-(-rows // block) * block, *column.shape],
        "chunk_grid": {"name": "regular", "configuration": grid},
        "data_type": column.dtype,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "fill_value": "NaN" if floating else 0,
    }


def _open(
    path: str | pathlib.Path, name: str, metadata: dict[str, Any], mend: bool
) -> ts.TensorStore:
    spec: dict[str, Any] = {
        "driver": "zarr3",
        "kvstore": _place(path, name),
        "metadata": metadata,
    }
    if name != _MARK:
        # A chunk that is gone is an error, never a chunk of zeros.
        spec["fill_missing_data_reads"] = False
        spec["store_data_equal_to_fill_value"] = True
    try:
        return ts.open(spec, open=True, create=True).result()
    except ValueError as error:
        text = f"{path}: cannot open {name!r}: {_short(error)}"
        if not mend:
            raise StoreError(f"{text}; {_MEND}") from error
    try:
        _kvstore(path).write(f"{name}/zarr.json", None).result()
        return ts.open(spec, open=True, create=True).result()
    except ValueError as error:
        raise StoreError(text) from error


def _flat(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{at}{name}."))
        else:
            flat[f"{at}{name}"] = json.loads(json.dumps(value))
    return flat


def _differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], unknown: Collection[str]
) -> list[str]:
    """What is said of the fields that differ, or that one side lacks."""
    want, there = _flat(expected), _flat(found)

    def said(fields: dict[str, Any], name: str) -> str:
        return repr(fields[name]) if name in fields else "nothing"

    return [
        f"{name}: expected {said(want, name)}, the store has {said(there, name)}"
        for name in {**want, **there}
        if name not in unknown
        and ((name in want) != (name in there) or want.get(name) != there.get(name))
    ]


def _short(error: Exception) -> str:
    """Without what TensorStore adds about itself in brackets, as [tensorstore_spec=."""
    return re.split(r" \[[a-z_ ]+=", str(error), maxsplit=1)[0].strip()


def _said(rows: slice | np.ndarray) -> str:
    if isinstance(rows, slice):
        return f"{rows.start} to {rows.stop - 1}"
    return f"{int(rows.min())} to {int(rows.max())}"
