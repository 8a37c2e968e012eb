"""Files of a run folder: config, metrics line by line, and a final summary.

Standard library only, so a folder can be read where JAX is not installed.

JSON has no NaN and no infinity. They are written as the strings "NaN", "Infinity" and
"-Infinity", which every JSON reader accepts, and read back as floats.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from kdjax.core.safe_read import parse_json, read_bytes

Path = str | os.PathLike[str]
Fields = Mapping[str, Any]

# Files of kdjax itself in a folder begin with it.
TEMPORARY = ".kdjax-"
# Locked by the process that trains in the folder.
LOCK = f"{TEMPORARY}lock"
# Run folders that a distillation creates in its own.
NESTED = ("teacher", "labels", "labels_mixup")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# Types of the fields of a summary; earlier releases wrote fewer.
_SUMMARY: dict[str, Any] = {
    **dict.fromkeys(("steps", "parameters", "classes", "channels", "examples"), int),
    **dict.fromkeys(("name", "command", "machine", "network", "log"), str),
    **dict.fromkeys(("seeds", "class_names", "skipped"), list),
    **dict.fromkeys(("left_out", "memory", "versions"), dict),
    "seconds": (int, float),
}
_TEXT = frozenset({"kind", "name", "command", "machine", "versions", "targets"})


class RunFolderError(ValueError):
    """A run folder that cannot be used. The text names the folder or file and why."""


def open_run(folder: Path, config: Fields) -> pathlib.Path:
    """Create the folder of a run with its config, or open it again: its path.

    An existing config stays; `kdjax.setup.identity` compares it first.

    Raises:
      RunFolderError: the folder contains other files, or cannot be written; new parts
      of its path are removed.
    """
    path = pathlib.Path(folder)
    exists = contains_run(path)
    make_writable(path, "workdir: ")
    if not exists:
        write_json(path / "config.json", config)
    return path


def make_writable(folder: Path, field: str = "") -> None:
    """Create a folder if needed, and refuse one that cannot be written."""
    path = pathlib.Path(folder)
    with _system_errors(f"{field}cannot write in {path}"):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write_temporary(path, bytes(4096)).unlink()
        except OSError:
            for created in missing:
                with contextlib.suppress(OSError):
                    created.rmdir()
            raise


def write_json(file: Path, values: Any) -> None:
    """Write a JSON file whole or not at all; arrays become lists."""
    write_bytes(file, dump(values, indent=2))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file whole or not at all: under another name first, then renamed."""
    path = pathlib.Path(file)
    with _system_errors(f"cannot write {path}"):
        temporary = _write_temporary(path.parent, content)
        try:
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def append_metrics(folder: Path, line: Fields) -> None:
    """Add one line to `metrics.jsonl`; a torn line before it is removed."""
    path = _metrics_file(folder)
    content = dump(line)
    if _parse_line(content) is None:
        raise RunFolderError(f"{path}: a line needs kind and step, got {dict(line)!r}")
    with _system_errors(f"cannot write {path}"):
        with open(path, "ab+") as stream:
            stream.seek(max(stream.tell() - 1, 0))
            torn = stream.read() not in (b"", b"\n")
        if torn:
            truncate_metrics(folder, math.inf)
        with open(path, "ab") as stream:
            stream.write(content)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; none where there is no such file.

    A last line torn by a crash is skipped. Any other invalid line is an error.
    """
    lines, invalid = _read_lines(folder)
    if invalid:
        number, text = invalid[0]
        got, path = repr(text[:80].decode(errors="replace")), _metrics_file(folder)
        raise RunFolderError(f"{path}, line {number}: not a metrics line: {got}")
    return [line for _, line in lines]


def hash_metrics(folder: Path, step: float = math.inf) -> str:
    """16 digits of the SHA-256 of the lines of `metrics.jsonl` up to a step."""
    lines, _ = _read_lines(folder)
    content = b"\n".join(text for text, line in lines if line["step"] <= step)
    return hashlib.sha256(content).hexdigest()[:16]


def recover_metrics(folder: Path, step: int) -> list[dict[str, Any]]:
    """The lines up to the step at which a run is resumed, without invalid ones."""
    lines, _ = _read_lines(folder)
    return [line for _, line in lines if line["step"] <= step]


def truncate_metrics(folder: Path, step: float) -> None:
    """Drop the lines after `step`, which a run resumed at `step` will write again.

    Invalid lines are dropped too.
    """
    path = _metrics_file(folder)
    if not path.exists():
        return
    lines, _ = _read_lines(folder)
    content = b"".join(text + b"\n" for text, line in lines if line["step"] <= step)
    write_bytes(path, content)


def _metrics_file(folder: Path) -> pathlib.Path:
    return pathlib.Path(folder) / "metrics.jsonl"


def _read_lines(folder: Path) -> tuple[list[tuple[bytes, dict]], list]:
    """The valid lines, each as bytes and values, and the others with their numbers.

    A last line without an end is neither.
    """
    path = _metrics_file(folder)
    texts = _read_bytes(path).split(b"\n") if path.exists() else [b""]
    lines, invalid = [], []
    for number, text in enumerate(texts, start=1):
        line = _parse_line(text)
        if line is not None:
            lines.append((text, line))
        elif number < len(texts):
            invalid.append((number, text))
    return lines, invalid


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config as plain values.

    Raises:
      RunFolderError: there is no run in the folder; the text says what there is.
    """
    path = pathlib.Path(folder)
    if not (path / "config.json").is_file():
        raise RunFolderError(f"no run in {path}: {_describe(path)}")
    return read_json(path / "config.json")


def find_config(folder: Path) -> dict[str, Any] | None:
    """The folder's config; None for a folder that is empty or missing.

    Raises:
      RunFolderError: as `contains_run` and `read_config`.
    """
    return read_config(folder) if contains_run(folder) else None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The folder's summary; None where the run is not finished.

    A summary that is cut off, or has holes, counts as missing, so that the run is
    measured again.

    Raises:
      RunFolderError: it cannot be read.
    """
    summary = _parse_whole(pathlib.Path(folder) / "summary.json")
    return summary if _is_summary(summary) else None


def is_finished(folder: Path) -> bool:
    """True once the run has written its summary, its last file, to the end."""
    return read_summary(folder) is not None


def _is_summary(summary: Any) -> bool:
    """True for a table with results, whose fields have their types."""
    if not isinstance(summary, dict) or not isinstance(summary.get("test"), dict):
        return False
    present = {name: kind for name, kind in _SUMMARY.items() if name in summary}
    typed = all(isinstance(summary[name], kind) for name, kind in present.items())
    return typed and bool(summary["test"])


def contains_run(folder: Path) -> bool:
    """True for a folder with a `config.json`, false for one that is empty or missing.

    Raises:
      RunFolderError: the folder is a file, or contains other files.
    """
    path = pathlib.Path(folder)
    with _system_errors(f"workdir: cannot read {path}"):
        if not path.exists():
            return False
        if not path.is_dir():
            raise RunFolderError(f"workdir: {path}: Not a directory")
        if (path / "config.json").is_file():
            return True
        # A killed run may leave its lock, and a file that is not yet renamed.
        names = [f.name for f in path.iterdir() if not f.name.startswith(TEMPORARY)]
    if names:
        text = f"workdir: {path} is not empty and has no config.json"
        raise RunFolderError(f"{text}: {', '.join(sorted(names)[:3])}")
    return False


def refuse_nested(folder: Path) -> None:
    """Refuse a new run folder inside the folder of another run.

    Legal are the names in `NESTED`, which a distillation creates in its own folder.

    Raises:
      RunFolderError: naming both folders.
    """
    path = pathlib.Path(os.path.abspath(folder))
    if (path / "config.json").is_file():
        return
    for parent in path.parents:
        created = path.parent == parent and path.name in NESTED
        if not created and _is_run_config(parent / "config.json"):
            text = f"workdir: expected a folder outside other runs, {path} lies in the"
            raise RunFolderError(f"{text} run {parent}")


def _is_run_config(file: pathlib.Path) -> bool:
    """True for the config of a run; other programs have files of that name, too."""
    try:
        values = _parse_whole(file)
    except RunFolderError:
        return False
    return isinstance(values, dict) and {"workdir", "optim", "steps"} <= values.keys()


def _describe(path: pathlib.Path) -> str:
    """The contents of a path that is no run folder, and the path that is meant."""
    if (path.parent / "config.json").is_file():
        return f"the run is {path.parent}"
    if not path.exists():
        return f"there is no such folder (`kdjax train --workdir {path}` makes one)"
    if not path.is_dir():
        return "it is a file"
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    runs = [name for name in names if (path / name / "config.json").is_file()]
    if not names:
        return f"the folder is empty (`kdjax train --workdir {path}` makes one)"
    found = ", ".join((runs or names)[:5]) + ", ..." * (len(runs or names) > 5)
    return f"it has {'the runs ' if runs else 'no config.json, but '}{found}"


def _write_temporary(folder: pathlib.Path, content: bytes) -> pathlib.Path:
    path = folder / f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
    try:
        with open(path, "xb") as stream:
            stream.write(content)
            # Else a power cut may keep the rename and lose the bytes.
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _read_bytes(path: pathlib.Path) -> bytes:
    with _system_errors(f"cannot read {path}"):
        return read_bytes(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The fields of a JSON file; `RunFolderError` where it is no table of fields."""
    try:
        values = parse_json(_read_bytes(path))
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunFolderError(f"{path} is not a table of fields: {values!r:.80}")
    return values


def _parse_whole(path: pathlib.Path) -> Any:
    """The values of a JSON file; None where it is missing or cut off."""
    try:
        return decode(parse_json(_read_bytes(path))) if path.is_file() else None
    except ValueError:
        return None


def _parse_line(text: bytes) -> dict[str, Any] | None:
    try:
        line = parse_json(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and type(line.get("step")) is int
    return decode(line) if whole and isinstance(line.get("kind"), str) else None


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if hasattr(value, "tolist"):
        return _encode(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def decode(value: Any) -> Any:
    """Values read from JSON, with floats for "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, dict):
        # A run may be called "NaN"; its name stays a name.
        return {k: v if k in _TEXT else decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


def dump(values: Any, indent: int | None = None) -> bytes:
    """Values as JSON with an end of line; arrays become lists."""
    text = json.dumps(_encode(values), indent=indent, allow_nan=False)
    return f"{text}\n".encode()


@contextlib.contextmanager
def _system_errors(text: str) -> Iterator[None]:
    """Raise errors of the system as `RunFolderError` in one line, after `text`."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{text}: {error.strerror or error}") from error
