"""Preparation of TFDS data sets on this machine: download, and write array_record.

TFDS itself reads the archives of CIFAR and MNIST with TensorFlow. Here they are read
without, and everything else is left to TFDS: names, versions, features, checksums of
downloads, and the order of the records.
"""

import gzip
import io
import pathlib
import tarfile
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from kdjax.config import ConfigError, require
from kdjax.data.tfds_sets import PRESETS

_IDX = {"train": "train", "test": "t10k"}


def prepare(name: str, data_dir: str = "") -> pathlib.Path:
    """Prepare a data set for `data.name`; one that is there already is left as it is.

    Args:
      name: as `tfds_sets.load` takes it.
      data_dir: folder of the TFDS data sets; empty for TFDS_DATA_DIR or its default.

    Returns:
      The folder of the set.

    Raises:
      ConfigError: no such set, no connection, or one that needs TensorFlow here.
    """
    import tensorflow_datasets as tfds

    name = name.removeprefix("tfds:")
    name = PRESETS[name].name if name in PRESETS else name
    options: dict[str, Any] = {"file_format": "array_record"}
    if data_dir:
        options["data_dir"] = str(pathlib.Path(data_dir).expanduser())
    try:
        known = tfds.builder_cls(name)
        make = _without_tensorflow(known)
        builder: Any = make(**options) if make else tfds.builder(name, **options)
        builder.download_and_prepare()
    except Exception as error:
        raise ConfigError("name", reason=_explain(name, error)) from error
    return pathlib.Path(builder.data_dir)


def _explain(name: str, error: Exception) -> str:
    """One line on why a set cannot be prepared."""
    import tensorflow_datasets as tfds

    if isinstance(error, tfds.core.DatasetNotFoundError):
        return f"expected a data set of TFDS, got {name!r}"
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, ImportError) and "tensorflow" in str(error).lower():
        return (
            f"TFDS needs TensorFlow to prepare {name}. Install it in an environment of "
            'its own and run there: python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', file_format='array_record')"
            '.download_and_prepare()"'
        )
    return f"TFDS cannot prepare {name}: {type(error).__name__}: {text}"


def _without_tensorflow(known: Any) -> Any:
    """A builder of the same set that reads its archive in Python; None where not."""
    from tensorflow_datasets.image_classification import cifar, mnist

    readers = {
        cifar.Cifar10: _cifar_splits,
        cifar.Cifar100: _cifar_splits,
        mnist.MNIST: _mnist_splits,
        mnist.FashionMNIST: _mnist_splits,
    }
    if known not in readers:
        return None
    # The name of the set, and the folder of its checksums.
    fields = {"name": known.name, "pkg_dir_path": known.pkg_dir_path}
    fields |= {"_split_generators": readers[known], "__module__": known.__module__}
    return type(known.__name__, (known,), fields, skip_registration=True)


def _cifar_splits(builder: Any, downloads: Any) -> dict[str, Iterator[Any]]:
    """The splits of CIFAR-10 or CIFAR-100, from its archive of binary files."""
    about = builder._cifar_info
    with tarfile.open(downloads.download(about.url)) as archive:

        def read(file: str) -> bytes:
            stream = archive.extractfile(about.prefix + file)
            require(stream is not None, "name", f"{file} in {about.url}", "none")
            assert stream is not None
            return stream.read()

        for key, file in zip(about.label_keys, about.label_files, strict=True):
            names = [name for name in read(file).decode().split("\n") if name]
            builder.info.features[key].names = names
        train = b"".join(read(file) for file in about.train_files)
        test = b"".join(read(file) for file in about.test_files)
    keys = about.label_keys
    return {
        "train": _cifar_examples("train_", train, keys),
        "test": _cifar_examples("test_", test, keys),
    }


def _cifar_examples(
    prefix: str, content: bytes, keys: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Examples of rows of labels, then 3 x 32 x 32 bytes."""
    labels = len(keys)
    rows = np.frombuffer(content, np.uint8).reshape(-1, labels + 3 * 32 * 32)
    for index, row in enumerate(rows):
        pixels = row[labels:].reshape(3, 32, 32).transpose(1, 2, 0)
        numbers = {key: int(x) for key, x in zip(keys, row, strict=False)}
        yield index, {"id": f"{prefix}{index:05d}", "image": _png(pixels), **numbers}


def _mnist_splits(builder: Any, downloads: Any) -> dict[str, Iterator[Any]]:
    """The splits of a set in the IDX format of MNIST."""

    def read(file: str, header: int) -> np.ndarray:
        path = downloads.download(urllib.parse.urljoin(builder.URL, file))
        content = gzip.decompress(pathlib.Path(path).read_bytes())
        return np.frombuffer(content, np.uint8, offset=header)

    def examples(stem: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images = read(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read(f"{stem}-labels-idx1-ubyte.gz", 8)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": _png(image), "label": int(label)}

    return {split: examples(stem) for split, stem in _IDX.items()}


def _png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    buffer.seek(0)
    return buffer
