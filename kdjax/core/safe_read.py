"""Files that a user names: read only where they are files, with an end."""

import errno
import json
import os
import pathlib
import stat
from typing import Any


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise `OSError` for a folder, a pipe or a device, whose bytes may never end.

    Links are followed.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; `OSError` for anything else."""
    require_regular(path)
    return pathlib.Path(path).read_bytes()


def parse_json(content: str | bytes) -> Any:
    """The values in a JSON text; `ValueError` for whatever is none."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
