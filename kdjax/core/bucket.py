"""Folders in a bucket (`gs://bucket/run`): data are read there, runs have a copy.

Each machine works in a copy of a run folder, in the user's cache. Checkpoints are in
the bucket alone: Orbax writes them there (`find_place`). What is in the bucket counts:
`open_folder` makes the copy equal to it, and `writing` sends what changes.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from kdjax.core import runlog, safe_read
from kdjax.core.user_cache import user_cache

# A `Path` of a URL has kept one of its two slashes.
_URL = re.compile(r"gs:/{1,2}([^/].*?)/*")
# Folders that are in the bucket alone.
_ALONE = ("checkpoints", "damaged")
# Names the process that writes in the folder.
_WRITER = f"{runlog.TEMPORARY}writer"
# Seconds between two looks for files that have changed.
_PAUSE = 15.0
# Seconds to wait for another process that reads or writes the copy.
_WAIT = 2.0

_one_at_a_time = threading.RLock()
# Size and time of each file when it was equal to the one in the bucket.
_equal: dict[pathlib.Path, tuple[int, int]] = {}
# What this process has written into `_WRITER`, by folder.
_own: dict[pathlib.Path, bytes] = {}


def open_folder(path: runlog.Path, field: str = "workdir") -> pathlib.Path:
    """The folder at a path; of `gs://bucket/run` its copy, made equal to the bucket.

    A copy in which another process of this machine trains is left as it is.

    Args:
      path: a folder or URL.
      field: named in errors.

    Raises:
      RunFolderError: it is a bucket as a whole, or cannot be read, or gcsfs is not
        installed.
    """
    found = _URL.fullmatch(os.fspath(path))
    if found is None:
        return pathlib.Path(path)
    parts = found[1].split("/")
    if len(parts) == 1 or {"", ".", ".."} & {*parts}:
        text = f"{field}: expected gs://bucket/path, got 'gs://{found[1]}'"
        raise runlog.RunFolderError(text)
    _require_gcsfs(found[1], field)
    folder = _copies().joinpath(*parts)
    with _locked(folder) as is_free:
        if is_free:
            _pull(folder, field)
    return folder


def _require_gcsfs(place: str, field: str) -> None:
    if importlib.util.find_spec("gcsfs") is None:
        text = f"{field}: gs://{place} needs gcsfs: pip install 'kdjax[gs]'"
        raise runlog.RunFolderError(text)


def find_url(folder: runlog.Path) -> str | None:
    """The URL of a copy, and None for any other folder."""
    path = pathlib.Path(os.path.abspath(folder))
    if not path.is_relative_to(_copies()):
        return None
    return f"gs://{path.relative_to(_copies()).as_posix()}"


def find_place(path: pathlib.Path) -> Any:
    """The place of checkpoints: in a copy it is in the bucket, as an `epath.Path`."""
    url = find_url(path)
    if url is None:
        return path
    from etils import epath

    return epath.Path(url)


def is_url(path: runlog.Path) -> bool:
    """True for a path in a bucket."""
    return _URL.fullmatch(os.fspath(path)) is not None


def open_place(path: runlog.Path, field: str) -> Any:
    """A folder to read: of this machine, or in a bucket, as an `epath.Path`.

    Raises `RunFolderError` for a bucket where gcsfs is not installed.
    """
    found = _URL.fullmatch(os.fspath(path))
    if found is None:
        return pathlib.Path(path).expanduser()
    _require_gcsfs(found[1], field)
    from etils import epath

    return epath.Path(f"gs://{found[1]}")


def states_of(files: Iterable[str]) -> list[tuple[str, ...]]:
    """Name, size and checksum of files in a bucket; of others the time of writing."""
    found = []
    for file in files:
        if is_url(file):
            about = _system().info(file)
            state = about["size"], about.get("crc32c") or about.get("md5Hash")
        else:
            stat = os.stat(file)
            state = stat.st_size, stat.st_mtime_ns
        found.append((os.path.basename(file), *map(str, state)))
    return found


def forget_listings(place: Any) -> None:
    """Make the next look at a place in a bucket see what others wrote."""
    if not isinstance(place, pathlib.Path):
        _system().invalidate_cache()


def move(source: Any, target: Any) -> None:
    """Move a folder to a place as `find_place` returns it."""
    if isinstance(source, pathlib.Path):
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
    else:
        _system().mv(str(source), str(target), recursive=True)


def read_bytes(file: Any) -> bytes:
    """The bytes of a regular file at a place; `OSError` for anything else."""
    if isinstance(file, pathlib.Path):
        return safe_read.read_bytes(file)
    try:
        return file.read_bytes()
    except OSError:
        raise
    except Exception as error:
        # gcsfs has errors of its own.
        raise OSError(str(error)) from error


def write_bytes(file: Any, content: bytes) -> None:
    """Write a file at a place, whole or not at all; `RunFolderError` where it fails."""
    if isinstance(file, pathlib.Path):
        return runlog.write_bytes(file, content)
    try:
        file.write_bytes(content)
    except Exception as error:
        raise runlog.RunFolderError(f"cannot write {file}: {error}") from error


def with_urls(text: str) -> str:
    """A text for users: the URL of a copy in place of its folder."""
    return text.replace(f"{_copies()}/", "gs://")


def _system() -> Any:
    """The bucket as `epath` sees it, with its listings."""
    import fsspec

    return fsspec.filesystem("gcs", finalize_on_close=True)


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Within the block, send files of a copy to its bucket as they change.

    Every process of a run must enter it, after the folder is locked. The first one
    sends, every 15 s, with each `push`, and at the end. The last one to begin has the
    bucket: others end at their next `push`.
    """
    if find_url(folder) is None or any(x in _own for x in (folder, *folder.parents)):
        yield
        return
    from kdjax.core import hosts

    _own[folder] = b""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(_PAUSE):
            # What cannot be sent now is an error of the next checkpoint.
            with contextlib.suppress(runlog.RunFolderError):
                push(folder)

    sender = threading.Thread(target=send, daemon=True)
    try:
        if hosts.is_first():
            _begin(folder)
            sender.start()
        yield
        push(folder)
    except BaseException:
        # The error that ends the run is shown; this one would hide it.
        with contextlib.suppress(runlog.RunFolderError):
            push(folder)
        raise
    finally:
        stop.set()
        del _own[folder]


def push(folder: pathlib.Path) -> None:
    """Send the files of a copy that have changed; the summary, a run's last, at last.

    Nothing is done in other folders, and by other processes than the first.

    Raises:
      RunFolderError: the bucket cannot be written, or another process has begun to.
    """
    url = find_url(folder)
    if url is None:
        return
    from kdjax.core import hosts

    if not hosts.is_first():
        return
    with _one_at_a_time, _errors_of(url, "write"):
        for root, own in _own.items():
            if folder.is_relative_to(root) and own:
                _require_own(root, own)
        files = _open(url)
        found = {name: folder / name for name in _names_in(folder)}
        states = {name: _state(file) for name, file in found.items()}
        changed = [x for x in found if _equal.get(found[x]) != states[x]]
        last = [x for x in changed if pathlib.PurePosixPath(x).name == "summary.json"]
        for group in ([x for x in changed if x not in last], last):
            sent = [files.write(x, found[x].read_bytes()) for x in group]
            for name, future in zip(group, sent, strict=True):
                future.result()
                _equal[found[name]] = states[name]
        gone = [x for x in _equal if x.is_relative_to(folder) and not x.exists()]
        for file in gone:
            files.write(file.relative_to(folder).as_posix(), None).result()
            del _equal[file]


def share(folder: pathlib.Path) -> None:
    """Send the files of a copy, which the other processes then have in theirs.

    Every process of a run must call it.
    """
    if find_url(folder) is None:
        return
    from kdjax.core import hosts

    push(folder)
    hosts.wait_for_all("sent the folder")
    if not hosts.is_first():
        _pull(folder, "workdir", keep=True)


def _pull(folder: pathlib.Path, field: str, keep: bool = False) -> None:
    """Make a copy equal to the bucket; `keep` leaves files that only the copy has."""
    url = find_url(folder)
    assert url is not None
    with _one_at_a_time, _errors_of(url, "read", field):
        names = _names_at(url)
        files = _open(url)
        read = {name: files.read(name) for name in names}
        for name, future in read.items():
            found, file = future.result(), folder / name
            if found.state != "value":
                continue
            if not file.is_file() or file.read_bytes() != found.value:
                file.parent.mkdir(parents=True, exist_ok=True)
                runlog.write_bytes(file, found.value)
            _equal[file] = _state(file)
        if keep:
            return
        for name in {*_names_in(folder)} - {*names}:
            (folder / name).unlink(missing_ok=True)
            _equal.pop(folder / name, None)
        for inner in [x for x in folder.iterdir() if x.is_dir()]:
            if not any(_names_in(inner)):
                # What is left is locks of runs that have gone.
                shutil.rmtree(inner, ignore_errors=True)


def _begin(folder: pathlib.Path) -> None:
    """Write a name of this process's own into the bucket."""
    url = find_url(folder)
    assert url is not None
    _own[folder] = secrets.token_hex(16).encode()
    with _errors_of(url, "write"):
        _open(url, few=True).write(_WRITER, _own[folder]).result()


def _require_own(folder: pathlib.Path, own: bytes) -> None:
    url = find_url(folder)
    assert url is not None
    if _open(url).read(_WRITER).result().value != own:
        raise runlog.RunFolderError(f"workdir: {url}: another process trains in it now")


def _open(url: str, few: bool = False) -> Any:
    from kdjax.core.stored_files import FEW_RETRIES, open_files

    return open_files(url, FEW_RETRIES if few else None)


def _names_at(url: str) -> list[str]:
    """The files in the bucket that belong into a copy.

    Raises ValueError for a name that would leave the copy's folder.
    """
    names = []
    for name in (x.decode() for x in _open(url, few=True).list().result()):
        parts = name.split("/")
        if {"", ".", ".."} & {*parts} or "\0" in name:
            raise ValueError(f"{name!r} is no name of a file")
        if _belongs(parts):
            names.append(name)
    return names


def _names_in(folder: pathlib.Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if file.is_file() and _belongs(name.parts):
            yield name.as_posix()


def _belongs(parts: tuple[str, ...] | list[str]) -> bool:
    """False for checkpoints, and for files that are of one machine."""
    return not ({*_ALONE} & {*parts[:-1]} or parts[-1].startswith(runlog.TEMPORARY))


def _state(file: pathlib.Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _copies() -> pathlib.Path:
    return user_cache() / "buckets"


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[bool]:
    """Lock a copy, and the runs around it; false where another process has one."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    around = [x for x in folder.parents if (x / runlog.LOCK).exists()]
    with contextlib.ExitStack() as stack:
        for each in (folder, *around):
            lock = FileLock(each / runlog.LOCK, is_singleton=True)
            try:
                stack.enter_context(lock.acquire(timeout=_WAIT))
            except Timeout:
                yield False
                return
        yield True


@contextlib.contextmanager
def _errors_of(url: str, verb: str, field: str = "workdir") -> Iterator[None]:
    from kdjax.core.stored_files import short

    try:
        yield
    except runlog.RunFolderError:
        raise
    except (ValueError, OSError) as error:
        text = f"{field}: cannot {verb} {url}: {short(error).rstrip(':')}"
        text += f" (does `gcloud storage ls {url}` work?)"
        raise runlog.RunFolderError(text) from error
