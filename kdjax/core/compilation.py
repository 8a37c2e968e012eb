"""The persistent compilation cache: compiled programs in the user's cache folder."""

import contextlib
import os
import pathlib
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from kdjax.core.user_cache import user_cache

# Above so many bytes the oldest programs are deleted. JAX's own limit needs a second
# file for each program, and a killed process may leave one without the other.
LIMIT = 4 * 2**30
# Programs that compile faster are not worth a file.
SECONDS = 0.1
# Seconds after which a file is no longer being written.
_WRITING = 60.0
_DIRECTORY = "jax_compilation_cache_dir"
_ENABLED = "jax_enable_compilation_cache"
_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def cache_folder() -> pathlib.Path:
    """The folder of compiled programs, one for each version of kdjax and JAX."""
    return user_cache() / "compiled" / f"kdjax-{_version()}-jax-{jax.__version__}"


def _version() -> str:
    try:
        return metadata.version("kdjax")
    except metadata.PackageNotFoundError:
        return "source"


@contextlib.contextmanager
def cache_programs() -> Iterator[None]:
    """Keep compiled programs in `cache_folder()` for the time of a `with` block.

    A cache that the user has chosen stays: JAX_COMPILATION_CACHE_DIR names its folder,
    and JAX_ENABLE_COMPILATION_CACHE=false turns it off. A folder that cannot be written
    is a warning, and nothing is cached. A program that a killed process left torn is
    deleted, with a warning.
    """
    folder = cache_folder()
    if _is_chosen() or not _make_writable(folder):
        yield
        return
    _delete_torn(folder, time.time() - _WRITING)
    _delete_oldest(folder.parent, LIMIT)
    settings: dict[str, Any] = {_DIRECTORY: str(folder)}
    if _SECONDS.upper() not in os.environ:
        settings[_SECONDS] = SECONDS
    before = {name: getattr(jax.config, name) for name in settings}
    _update(settings)
    try:
        yield
    finally:
        _update(before)


def _is_chosen() -> bool:
    """True where the user has set a folder, or turned the cache off."""
    chosen = getattr(jax.config, _DIRECTORY) is not None
    return chosen or not getattr(jax.config, _ENABLED)


def _update(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX opens the folder once, when it first compiles.
    compilation_cache.reset_cache()


def _make_writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        warnings.warn(
            f"compilation cache: cannot write {folder}: {error.strerror}; every start "
            "compiles again. JAX_COMPILATION_CACHE_DIR names another folder, "
            "JAX_ENABLE_COMPILATION_CACHE=false turns the cache off",
            stacklevel=2,
        )
        return False


def _delete_torn(folder: pathlib.Path, until: float) -> None:
    """Delete the programs that are cut off, each being read once.

    JAX would compile such a program at every start, and warn of it.

    until: a time; a file that is younger may still be written.
    """
    checked = folder / "checked"
    torn = []
    # Another process may delete files at the same time.
    with contextlib.suppress(OSError):
        since = checked.stat().st_mtime if checked.exists() else -1.0
        for path in folder.glob("*-cache"):
            if since < path.stat().st_mtime <= until and not _is_whole(path):
                path.unlink(missing_ok=True)
                torn.append(path.name)
        checked.touch()
        os.utime(checked, (until, until))
    if torn:
        text = f"compilation cache: deleted {len(torn)} incomplete programs in {folder}"
        warnings.warn(f"{text}; they are compiled again", stacklevel=2)


def _is_whole(path: pathlib.Path) -> bool:
    content = path.read_bytes()
    # Where the package zstandard is there, JAX uses it; such files are left to JAX.
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return True
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True


def _delete_oldest(root: pathlib.Path, limit: int) -> None:
    """Delete the oldest files below a folder until they have at most `limit` bytes."""
    # Another process may delete files at the same time.
    with contextlib.suppress(OSError):
        files = [(x.stat(), x) for x in root.rglob("*-cache")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size
