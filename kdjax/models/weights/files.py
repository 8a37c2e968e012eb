"""Named arrays in files: .npz, .safetensors and the model.json of TensorFlow.js.

Nothing is ever unpickled: a pickle can run any program.
"""

import math
import os
import pathlib
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from kdjax.config import restore_url
from kdjax.core.safe_read import parse_json, read_bytes
from kdjax.models.weights.errors import WeightsError

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
T = TypeVar("T")

PICKLES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt", ".tar", ".th")
FORMATS = ".npz, .safetensors, or a folder with the model.json of TensorFlow.js"
CONVERTER = "python -m kdjax.models.weights.convert_pth IN.pth OUT.safetensors"


def check_path(field: str, path: Any) -> None:
    """Refuse what is no path, and URLs."""
    if not isinstance(path, (str, os.PathLike)):
        raise WeightsError(f"{field}: expected the name of a file, got {path!r}")
    text = restore_url(path)
    if "://" in text and not os.path.exists(path):
        expected = "a file on this machine (a bucket can be mounted as one)"
        raise WeightsError(f"{field}: expected {expected}, got {text!r}")


def refuse_pickle(name: str, source: str = "") -> None:
    """Refuse a file that only unpickling could read, and name the converter.

    source: what the text calls it, by default `name`.
    """
    if pathlib.PurePath(name.lower()).suffix in PICKLES:
        raise WeightsError(
            f"{source or name}: expected {FORMATS}, got a pickle, which can run any "
            f"program when read; convert it where torch is installed: {CONVERTER}"
        )


def read_arrays(path: pathlib.Path) -> Arrays:
    """Every array of the file (or folder) by name, as they are stored.

    Raises `WeightsError` naming the file if it is missing, of another format, cut off,
    or holds anything but plain arrays.
    """
    readers: dict[str, Callable[[pathlib.Path], Arrays]] = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".json": _read_tfjs,
    }
    return _read(path, readers)


def read_shapes(path: pathlib.Path) -> Shapes:
    """The shape of every array by name, from the headers of the file alone.

    Raises `WeightsError` as `read_arrays`.
    """
    readers: dict[str, Callable[[pathlib.Path], Shapes]] = {
        ".npz": _npz_shapes,
        ".safetensors": _safetensors_shapes,
        ".json": _tfjs_shapes,
    }
    return _read(path, readers)


def _read(path: pathlib.Path, readers: Mapping[str, Callable[[pathlib.Path], T]]) -> T:
    """The content of a file, or of the model.json in a folder, by its suffix."""
    if path.is_dir():
        folder, path = path, path / "model.json"
        if not path.exists():
            raise WeightsError(f"{folder}: expected {FORMATS}, got a folder without it")
    refuse_pickle(str(path))
    if path.suffix not in readers:
        raise WeightsError(f"{path}: expected {FORMATS}, got another kind of file")
    if not path.is_file():
        got = "what is no regular file" if path.exists() else "nothing there"
        raise WeightsError(f"{path}: expected a file, got {got}")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: expected {FORMATS}, got an empty file")
    try:
        return readers[path.suffix](path)
    except WeightsError:
        raise
    except _DAMAGED as error:
        text = f"{path}: expected a whole {path.suffix} file, got: {error}"
        raise WeightsError(text) from error


_DAMAGED = (
    OSError,
    EOFError,
    MemoryError,
    OverflowError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    SafetensorError,
)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write .npz or .safetensors, by the suffix of `path`.

    It is written under another name first and then renamed, so that a file of that name
    stays whole if this fails.

    Raises `WeightsError` for any other suffix, and where it cannot be written.
    """
    writers = {".npz": _write_npz, ".safetensors": _write_safetensors}
    if path.suffix not in writers:
        expected = "a name that ends in .npz or .safetensors"
        raise WeightsError(f"{path}: expected {expected}, got {path.suffix!r}")
    if not path.parent.is_dir():
        text = f"{path}: expected a folder {path.parent}, got nothing there"
        raise WeightsError(text)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        writers[path.suffix](temporary, arrays)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        text = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}: cannot be written: {text}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    plain: dict[str, Any] = {name: _plain(x) for name, x in arrays.items()}
    with open(path, "wb") as file:
        np.savez(file, **plain)


def _write_safetensors(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Rows one after another: the format has no other order.
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    safetensors.save_file(contiguous, path, {"format": "pt"})


def _plain(array: np.ndarray) -> np.ndarray:
    """bfloat16 as float32: in .npz it would come back as bytes without a type."""
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _read_npz(path: pathlib.Path) -> Arrays:
    # NumPy would take it for a pickle, and advise to load it as one.
    if not zipfile.is_zipfile(path):
        raise ValueError("no zip archive, or one that is cut off")
    _npz_shapes(path)
    arrays = {}
    # Opened here, since NumPy leaves a damaged file open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            if array.dtype.kind == "V":
                raise WeightsError(
                    f"{path}: expected arrays of numbers, got dtype {array.dtype.str} "
                    f"in {name}, which .npz cannot tell (bfloat16 becomes |V2): save "
                    "it as .safetensors, or in float32"
                )
            arrays[name] = array
    return arrays


def _npz_shapes(path: pathlib.Path) -> Shapes:
    return dict(_npz_headers(path))


def _npz_headers(path: pathlib.Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each array.

    Refuses shapes of more bytes than are stored, before memory is taken for them.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise ValueError(f"{info.filename}, which is no array")
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                old = version == (1, 0)
                read = np.lib.format.read_array_header_1_0
                read = read if old else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                stored = info.file_size - file.tell()
                # Deflate makes a file at most 1032 times as small.
                stored = min(stored, 1032 * info.compress_size)
            name, size = info.filename.removesuffix(".npy"), math.prod(shape)
            if min(shape, default=0) < 0 or size * dtype.itemsize > stored:
                raise ValueError(f"{name} of shape {shape}, with {stored} bytes")
            yield name, shape


# Types that NumPy has, with bfloat16.
_SAFETENSORS = {"BOOL", "F16", "BF16", "F32", "F64"} | {
    f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)
}


def _read_safetensors(path: pathlib.Path) -> Arrays:
    with safe_open(path, "numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    for name, dtype in types.items():
        if dtype not in _SAFETENSORS:
            text = f"{path}: {name}: expected a type that NumPy has, got {dtype}"
            raise WeightsError(f"{text} (save it in float32 or bfloat16)")
    return safetensors.load_file(path)


def _safetensors_shapes(path: pathlib.Path) -> Shapes:
    with safe_open(path, "numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def _tfjs_shapes(path: pathlib.Path) -> Shapes:
    groups = _tfjs_manifest(path)
    weights = (weight for group in groups for weight in group["weights"])
    return {weight["name"]: tuple(weight["shape"]) for weight in weights}


def _tfjs_manifest(path: pathlib.Path) -> list[Any]:
    content = parse_json(read_bytes(path))
    manifest = content.get("weightsManifest") if isinstance(content, dict) else None
    if not isinstance(manifest, list):
        raise ValueError("no list weightsManifest in it")
    for weight in (weight for group in manifest for weight in group["weights"]):
        sizes = weight["shape"]
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"{weight['name']} of shape {sizes!r:.80}")
    return manifest


def _read_tfjs(path: pathlib.Path) -> Arrays:
    """The shards named in the manifest one after another, cut by shape."""
    arrays = {}
    for group in _tfjs_manifest(path):
        # The name alone, so that a manifest cannot point out of the folder.
        shards = [path.parent / pathlib.PurePath(name).name for name in group["paths"]]
        data = b"".join(read_bytes(shard) for shard in shards)
        start = 0
        for weight in group["weights"]:
            dtype = _tfjs_dtype(weight)
            size = math.prod(weight["shape"])
            array = np.frombuffer(data, dtype, size, start).reshape(weight["shape"])
            arrays[weight["name"]] = array
            start += array.nbytes
        if start != len(data):
            raise ValueError(f"{len(data)} bytes in the shards, {start} in the list")
    return arrays


def _tfjs_dtype(weight: Mapping[str, Any]) -> np.dtype:
    if "quantization" in weight or weight["dtype"] not in ("float32", "int32"):
        raise ValueError(f"{weight['name']}, which is not plain float32")
    return np.dtype(weight["dtype"]).newbyteorder("<")
