"""Files in a folder or a bucket, as TensorStore reads and writes them."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tensorstore as ts

# An unreachable bucket is reported within seconds at the first read. Later requests
# keep TensorStore's own, longer retries.
_RETRIES = {"max_retries": 3, "initial_delay": "500ms"}
FEW_RETRIES = {f"{x}_request_retries": _RETRIES for x in ("gcs", "s3", "http")}


def locate(path: str | pathlib.Path, name: str = "") -> str | dict[str, str]:
    """A folder or URL, or what has a name in it, as TensorStore takes it."""
    if "://" in str(path):
        return "/".join(part for part in (str(path).rstrip("/"), name) if part) + "/"
    folder = pathlib.Path(path).expanduser().absolute() / name
    return {"driver": "file", "path": f"{folder}/"}


def open_files(
    path: str | pathlib.Path, context: Mapping[str, Any] | None = None
) -> ts.KvStore:
    """The files in a folder or URL; nothing is read or written yet."""
    return ts.KvStore.open(locate(path), context=ts.Context(context or {})).result()


def short(error: Exception) -> str:
    """The text of an error without TensorStore's context, as [tensorstore_spec=."""
    return re.split(r" \[[a-z_ ]+=", str(error), maxsplit=1)[0].strip()
