"""`manifest.json` in the folder or URL of a target store."""

import json
import pathlib
import re
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kdjax.core.safe_read import parse_json
from kdjax.core.stored_files import FEW_RETRIES, open_files, short

# The field of the manifest's own checksum.
_CHECKSUM = "checksum"
_LOST = "the store cannot be identified: remove it, or choose another path"


class StoreError(ValueError):
    """A store is missing, of something else, damaged, or cannot be written."""


def read_manifest(path: str | pathlib.Path) -> dict[str, Any] | None:
    """The manifest of a store; None where there is no store."""
    try:
        text = open_files(path, FEW_RETRIES).read("manifest.json").result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot read: {short(error)}") from error
    if text.state == "missing":
        return None
    try:
        manifest = parse_json(text.value)
    except ValueError as error:
        text = f"{path}: manifest.json is damaged: {error}; {_LOST}"
        raise StoreError(text) from error
    if isinstance(manifest, dict) and _CHECKSUM in manifest:
        if manifest.pop(_CHECKSUM) != checksum_manifest(manifest):
            text = f"{path}: manifest.json is damaged, its checksum differs; {_LOST}"
            raise StoreError(text)
    layout = manifest.get("layout") if isinstance(manifest, dict) else None
    if not _is_layout(layout):
        raise StoreError(f"{path}: expected a store, its manifest.json is no store's")
    return manifest


def _is_layout(layout: Any) -> bool:
    if not isinstance(layout, dict) or not isinstance(layout.get("arrays"), dict):
        return False
    counts = [layout.get("rows"), layout.get("block")]
    arrays = layout["arrays"].items()
    whole = all(_is_name(name) and _is_column(x) for name, x in arrays)
    return bool(arrays) and whole and all(map(_is_size, counts))


def _is_name(name: str) -> bool:
    """True for a name that is a path inside the store's folder."""
    parts = re.split(r"[/\\]", name)
    return not {"", ".", ".."} & {*parts} and "\0" not in name and ":" not in name


def _is_column(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not isinstance(value[0], list) or not isinstance(value[1], str):
        return False
    try:
        kind = np.dtype(value[1]).kind
    except TypeError:
        return False
    # bfloat16 and other types of JAX are of the kind V.
    return kind in "biufV" and all(map(_is_size, value[0]))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def checksum_manifest(manifest: Mapping[str, Any]) -> int:
    """CRC-32 of a manifest's fields."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def list_names(path: str | pathlib.Path) -> list[bytes]:
    """The names of all files of a store."""
    try:
        return open_files(path).list().result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot read: {short(error)}") from error


def write_manifest(path: str | pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` with its checksum."""
    whole = {**manifest, _CHECKSUM: checksum_manifest(manifest)}
    text = json.dumps(whole, indent=2, sort_keys=True) + "\n"
    try:
        open_files(path).write("manifest.json", text.encode()).result()
    except ValueError as error:
        raise StoreError(f"{path}: cannot write: {short(error)}") from error


def _flat(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{at}{name}."))
        else:
            flat[f"{at}{name}"] = json.loads(json.dumps(value))
    return flat


def find_differences(
    expected: Mapping[str, Any], stored: Mapping[str, Any], unknown: Collection[str]
) -> list[str]:
    """A line for each field that differs, or that one of the two lacks."""
    expected, stored = _flat(expected), _flat(stored)

    def value(fields: Mapping[str, Any], name: str) -> str:
        return repr(fields[name]) if name in fields else "nothing"

    return [
        f"{name}: expected {value(expected, name)}, the store has {value(stored, name)}"
        for name in {**expected, **stored}
        if name not in unknown
        and (
            (name in expected) != (name in stored)
            or expected.get(name) != stored.get(name)
        )
    ]
