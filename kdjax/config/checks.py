"""`ConfigError`, and functions that raise it."""

import contextlib
import dataclasses
import difflib
import os
import pathlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdjax.config.bounds import LARGEST_FLOAT

# One letter is a drive of Windows; a `pathlib.Path` of a URL has a single slash.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
LOCAL = "a folder on this machine (a bucket can be mounted as one)"
_IN_BUCKET = "gs://bucket/path"

# A longer list does not fit into one line of a message.
_MOST_NAMES = 12
# Nor does a longer value, or a longer name of a field.
_MOST_TEXT, _MOST_FIELD, _MOST_LINE = 120, 240, 297
# No name of a file is longer, in bytes, and no path.
_LONGEST_NAME, _LONGEST = 255, 4096
# Names in use elsewhere, in compact form, with their names here.
_SYNONYMS = {
    "learningrate": "lr",
    "weightdecay": "wd",
    "batchsize": "batch",
    "epochs": "steps",
    "iterations": "steps",
    "seedcount": "seeds",
    "numseeds": "seeds",
    "randomseed": "seed",
    "temp": "temperature",
    "tau": "temperature",
    "alpha": "weight",
    "warmupsteps": "warmup",
    "imagesize": "resolution",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
}


class ConfigError(ValueError):
    """An invalid field of a config; its text is one line.

        FIELD: [HINT ]expected EXPECTED, got GOT
        FIELD: REASON

    field: the dotted name.
    expected, got: the values allowed, in words, and the value that came.
    hint: a sentence before them, such as a name that was probably meant.
    shown: text for `got`, by default its `repr`.
    reason: text in place of all these, for an error that is no wrong value.
    """

    def __init__(
        self,
        field: str,
        expected: str = "",
        got: Any = None,
        *,
        hint: str = "",
        shown: str = "",
        reason: str = "",
    ):
        super().__init__(field, expected, got)
        self.field, self.expected, self.got = field, expected, got
        self.hint, self.shown, self.reason = hint, shown, reason

    def __str__(self) -> str:
        field = shorten(_escape(str(self.field)), _MOST_FIELD)
        if self.reason:
            return f"{field}: {self.reason}"
        hint = self.hint and f"{self.hint} "
        text = f"{field}: {hint}expected {self.expected}, got "
        got = self.shown or " ".join(_text(self.got).split())
        return text + shorten(got, min(_MOST_TEXT, max(_MOST_LINE - len(text), 20)))

    def at(self, field: str) -> "ConfigError":
        """The same error of another field."""
        texts = {"hint": self.hint, "shown": self.shown, "reason": self.reason}
        return ConfigError(field, self.expected, self.got, **texts)


def shorten(text: str, most: int = _MOST_TEXT) -> str:
    """A text of at most `most` characters, with `...` where it was cut."""
    return text if len(text) <= most else f"{text[:most]}..."


def _escape(text: str) -> str:
    """A text in one line: control characters as Python writes them."""
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    """True for control characters, and for halves of a surrogate pair."""
    return unicodedata.category(character) in ("Cc", "Cs")


def require_text(text: str, field: str) -> None:
    """Refuse a text that no path and no name can be."""
    expected = "text without control characters"
    require(not any(map(_is_control, text)), field, expected, text)
    expected = f"text of at most {_LONGEST} characters"
    if len(text) > _LONGEST:
        raise ConfigError(field, expected, text, shown=f"{len(text)} characters")


def require_path(path: str | os.PathLike[str], field: str) -> None:
    """Refuse a text that no path can be, and the home of nobody."""
    text = os.fspath(path)
    require_text(text, field)
    longest = max(len(part.encode()) for part in text.split("/"))
    expected = f"names of at most {_LONGEST_NAME} bytes in a path"
    if longest > _LONGEST_NAME:
        raise ConfigError(field, expected, text, shown=f"one of {longest}")
    home = text.startswith("~") and os.path.expanduser(text) == text
    require(not home, field, "a home folder that exists", text)


def _text(value: Any) -> str:
    """A value as users write it: of a config class, the fields not at their default."""
    if isinstance(value, pathlib.PurePath):
        return f"Path({restore_url(value)!r})"
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        try:
            return repr(value)
        except (RecursionError, ValueError):
            # Nested thousands of times, or an integer of thousands of digits.
            return f"a very long {type(value).__name__}"
    changed = {}
    for x in dataclasses.fields(value):
        make = x.default_factory
        default = x.default if make is dataclasses.MISSING else make()
        if repr(getattr(value, x.name)) != repr(default):
            changed[x.name] = getattr(value, x.name)
    shown = ", ".join(f"{name}={_text(x)}" for name, x in changed.items())
    return f"{type(value).__name__}({shown})"


def require(ok: bool, field: str, expected: str, got: Any) -> None:
    """Raise `ConfigError` naming the field, what was expected and what came."""
    if not ok:
        raise ConfigError(field, expected, got)


def require_type(
    value: Any, kind: type | tuple[type, ...], field: str, expected: str
) -> None:
    """Raise `ConfigError` for a value of another type, and name its type.

    The text of a whole object may have hundreds of lines.
    """
    if not isinstance(value, kind):
        raise ConfigError(field, expected, value, shown=type(value).__name__)


def to_path(value: Any, field: str) -> pathlib.Path:
    """A path with ~ replaced by the user's home; another type is an error."""
    require_type(value, (str, os.PathLike), field, "a path")
    require_path(value, field)
    return pathlib.Path(value).expanduser()


def require_local(
    path: str | os.PathLike[str], field: str, expected: str = LOCAL
) -> None:
    """Refuse a URL where a path is needed: it would name a local folder `s3:`."""
    text = restore_url(path)
    require_path(text, field)
    require(not _URL.match(text), field, expected, text)


def require_run_folder(path: str | os.PathLike[str], field: str) -> None:
    """Refuse what is neither a folder of this machine nor `gs://bucket/path`."""
    text = restore_url(path)
    _, bucket, inner = text.partition("gs://")
    parts = inner.rstrip("/").split("/")
    if bucket and text.startswith(bucket) and len(parts) > 1:
        require_path(text, field)
        require(not {"", ".", ".."} & {*parts}, field, _IN_BUCKET, text)
    else:
        require_local(path, field, f"{LOCAL}, or {_IN_BUCKET}")


def restore_url(path: str | os.PathLike[str]) -> str:
    """The text of a path. A `Path` of a URL has kept one of its two slashes.

    >>> restore_url(pathlib.Path("gs://bucket/run")), restore_url("runs/mine")
    ('gs://bucket/run', 'runs/mine')
    """
    text = os.fspath(path)
    scheme = None if isinstance(path, str) else _URL.match(text)
    return f"{scheme[0]}/{text[scheme.end() :]}" if scheme else text


def require_folder(path: str | os.PathLike[str], field: str) -> None:
    """Refuse a path that is a file, or inside of one, where a folder is needed."""
    places = (pathlib.Path(path), *pathlib.Path(path).parents)
    file = next((p for p in places if os.path.exists(p) and not os.path.isdir(p)), None)
    if file is not None:
        raise ConfigError(field, "a folder", path, shown=f"the file {file}")


def require_known(
    name: Any, names: Collection[str], field: str, expected: str = ""
) -> None:
    """Raise `ConfigError` for a name that is not among `names`, nearest first.

    expected: in place of the list of names, where that says more.
    """
    # A list, as what came may have no hash.
    if name in list(names):
        return
    near = near_names(name if isinstance(name, str) else "", names)
    if not expected:
        listed = f"one of {list_names(names, near)}"
        expected = listed if names else "no name, as there are none"
    raise ConfigError(field, expected, name, hint=suggest(near[:1]))


def suggest(near: Sequence[str]) -> str:
    """`did you mean 'A' or 'B'?`; empty without names."""
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_names(text: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Names that a text may stand for, the nearest first.

    Case, hyphens, underscores and dots are ignored. Common other words for a name, and
    the beginning of one, lead to it.

    >>> near_names("ResNet-56", ["resnet20", "resnet56"], 1)
    ['resnet56']
    >>> near_names("learning_rate", ["lr", "wd"]), near_names("validation", ["val"])
    (['lr'], ['val'])
    """
    compact = {name: _compact(name) for name in names}
    word = _compact(text)
    same = {word, _compact(_SYNONYMS.get(word, word))}
    exact = [
        name
        for name, its in compact.items()
        if its in same or _compact(_SYNONYMS.get(its, its)) == word
    ]
    if exact:
        return exact[:count]
    matcher = difflib.get_close_matches(word, compact.values(), count)
    close = [n for match in matcher for n, its in compact.items() if its == match]
    begins = [
        name
        for name, its in compact.items()
        if min(len(its), len(word)) > 2
        and (its.startswith(word) or word.startswith(its))
    ]
    near = [*close, *begins] or difflib.get_close_matches(text, compact, count)
    return list(dict.fromkeys(near))[:count]


def _compact(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def list_names(names: Collection[str], near: Sequence[str] = ()) -> str:
    """All names, or the nearest of a long list."""
    if len(names) <= _MOST_NAMES:
        return str(sorted(names))
    shown = ", ".join(near or sorted(names)[:3])
    return f"{len(names)} names ({shown}, ...)"


@contextlib.contextmanager
def beneath(field: str, names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raise errors of inner fields as errors of fields of `field`.

    names: {first name of the inner field: its name in `field`}; errors of other fields
    pass unchanged. By default all fields are meant, by their own names.
    """
    try:
        yield
    except ConfigError as error:
        first, dot, rest = error.field.partition(".")
        if names is not None and first not in names:
            raise
        first = first if names is None else names[first]
        raise error.at(f"{field}.{first}{dot}{rest}") from error


def is_number(value: Any) -> bool:
    """True for a finite number that 32 bits can hold."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and -LARGEST_FLOAT <= value <= LARGEST_FLOAT
