"""The local file behind a path or a name on the Hugging Face hub."""

import importlib
import os
import pathlib
import re
import socket
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

from kdjax.models.weights.errors import WeightsError
from kdjax.models.weights.files import FORMATS, PICKLES, check_path, refuse_pickle

# A name that ends so is meant as a path, unless it says hf: or names a file.
_SUFFIXES = (".npz", ".safetensors", ".json", *PICKLES)
_NAME = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>.+))?"
)
_VARIABLE = re.compile(r"\$\{?(?P<name>\w+)")


class HubFile(NamedTuple):
    """One file of a repository on the hub."""

    repo: str
    file: str
    revision: str | None


def parse_name(source: str) -> HubFile | None:
    """`[hf:]owner/name[@revision][:file]` in parts, or None for anything else.

    >>> parse_name("hf:timm/resnet50.a1_in1k")
    HubFile(repo='timm/resnet50.a1_in1k', file='model.safetensors', revision=None)
    >>> parse_name("weights/resnet20.npz") is None
    True
    """
    named = source.startswith("hf:")
    match = _NAME.fullmatch(source.removeprefix("hf:"))
    if match is None:
        return None
    if not (named or match["file"]) and source.lower().endswith(_SUFFIXES):
        return None
    file = match["file"] or "model.safetensors"
    return HubFile(match["repo"], file, match["revision"])


def expand_path(source: str | os.PathLike) -> str:
    """`source` with the user's home in place of ~ and with $VARIABLES filled in; those
    that are not set stay as they are."""
    return os.path.expanduser(os.path.expandvars(os.fspath(source)))


def find(source: str | os.PathLike) -> pathlib.Path | HubFile:
    """The local path of `source`, or the file on the hub that it names.

    A path that exists is taken as a path, whatever it looks like.

    Raises `WeightsError` naming `source` if it is neither.
    """
    check_path("source", source)
    text = expand_path(source)
    path = pathlib.Path(text)
    if path.exists():
        return path
    hub_file = parse_name(source) if isinstance(source, str) else None
    if hub_file is not None:
        refuse_pickle(hub_file.file, str(source))
        return hub_file
    refuse_pickle(str(source))
    unset = _VARIABLE.search(text)
    if unset:
        expected = f"the environment variable {unset['name']} to be set"
        raise WeightsError(f"{source}: expected {expected}, got none")
    expected = f"{FORMATS}, or a hub name hf:owner/name[@revision][:file]"
    at = "" if text == os.fspath(source) else f" ({text})"
    raise WeightsError(f"{source}: expected {expected}, got nothing there{at}")


def resolve(source: str | os.PathLike) -> pathlib.Path:
    """The local path of `source`, fetched from the hub if it is a name there.

    Raises `WeightsError` naming `source` if there is no such file or repository, if the
    hub cannot be reached, or if `huggingface_hub` (extra `hub`) is not installed.
    """
    location = find(source)
    return (
        _download(str(source), location) if isinstance(location, HubFile) else location
    )


def _download(source: str, hub_file: HubFile) -> pathlib.Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        errors: Any = importlib.import_module("huggingface_hub.errors")
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError as error:
        install = "pip install 'kdjax[hub]'"
        text = f"a local file, or the package huggingface_hub ({install})"
        raise WeightsError(f"{source}: expected {text}, got: {error}") from error
    try:
        # Without a network it would try for half a minute.
        offline = not _reachable(constants.ENDPOINT)
        options = {"revision": hub_file.revision, "local_files_only": offline}
        return pathlib.Path(
            hub.hf_hub_download(hub_file.repo, hub_file.file, **options)
        )
    except errors.LocalEntryNotFoundError as error:
        text = "the network, or the file in the local cache of huggingface_hub"
        raise WeightsError(f"{source}: expected {text}, got neither") from error
    except errors.RepositoryNotFoundError as error:
        text = f"a repository {hub_file.repo} that you may read, got 404 or 401"
        raise WeightsError(f"{source}: expected {text}") from error
    except errors.RevisionNotFoundError as error:
        text = f"revision {hub_file.revision} in {hub_file.repo}, got 404"
        raise WeightsError(f"{source}: expected {text}") from error
    except errors.EntryNotFoundError as error:
        text = f"a file {hub_file.file} in {hub_file.repo}, got 404"
        raise WeightsError(f"{source}: expected {text}") from error
    except Exception as error:
        # Whatever its HTTP library raises (that has changed between its versions).
        text = f"{hub_file.file} of {hub_file.repo} from the hub"
        raise WeightsError(f"{source}: expected {text}, got: {error}") from error


def _reachable(endpoint: str) -> bool:
    """True where a connection opens; assumed behind a proxy."""
    url = urllib.parse.urlsplit(endpoint)
    if urllib.request.getproxies().get(url.scheme):
        return True
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True
