"""Data sets that TFDS has prepared, on this machine or in a bucket, read without
TensorFlow."""

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.config import ConfigError, near_names, require, require_run_folder, suggest
from kdjax.core import bucket, runlog
from kdjax.core.fingerprint import fingerprint_bytes, fingerprint_files
from kdjax.core.user_cache import user_cache
from kdjax.data import images as pictures
from kdjax.data.source import (
    UNLABELED,
    LazySplits,
    Source,
    class_names,
    first_shape,
)


class Preset(NamedTuple):
    """A TFDS set and the splits that its results are reported on."""

    name: str
    train: str
    validation: str
    test: str


PRESETS = {
    "flowers102": Preset("oxford_flowers102", "train", "validation", "test"),
    "oxford_iiit_pet": Preset("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test"),
    "food101": Preset("food101", "train[:90%]", "train[90%:]", "validation"),
    "sun397": Preset("sun397/tfds", "train", "validation", "test"),
    "imagenet2012": Preset("imagenet2012", "train[:98%]", "train[98%:]", "validation"),
    "cifar10": Preset("cifar10", "train[:90%]", "train[90%:]", "test"),
    "cifar100": Preset("cifar100", "train[:90%]", "train[90%:]", "test"),
    "mnist": Preset("mnist", "train[:90%]", "train[90%:]", "test"),
    "fashion_mnist": Preset("fashion_mnist", "train[:90%]", "train[90%:]", "test"),
}

# From here on, the labels are kept on disk: reading them takes a pass over all images.
KEEP_LABELS_FROM = 100_000
CHUNK = 1_000


def load(
    name: str,
    data_dir: str = "",
    channels: int = 0,
    field: str = "data.name",
    *,
    read_labels: bool = True,
) -> Mapping[str, Source]:
    """A source for each split of a preset or of any TFDS set with `image` features.

    Args:
      name: of a preset, or as TFDS writes it: `name`, `name/config`, `name:version`.
      data_dir: where TFDS keeps its sets; empty for TFDS_DATA_DIR or its default.
      channels: 1 or 3; 0 keeps those of the set.
      read_labels: False leaves every label at 0, which reads headers alone.

    Raises:
      ConfigError: it is not prepared here as array_record; the text says how to.
    """
    import tensorflow_datasets as tfds

    tfds_name = PRESETS[name].name if name in PRESETS else name
    folder = _folder(tfds_name, data_dir, field)
    field = f"{field} (tfds:{tfds_name})"
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        text = f"cannot be read from {folder}: {type(error).__name__}: {error}"
        raise ConfigError(field, reason=text.splitlines()[0]) from error
    features: Any = builder.info.features
    has = features is not None and "image" in features
    require(has, field, "a set with an image feature", sorted(features or {}))
    stored: Any = builder.info.file_format
    kind = stored.value
    ok = kind in ("array_record", "parquet")
    expected = f"array_record files ({_prepare(tfds_name, data_dir)}, after a removal)"
    require(ok, field, expected, kind)
    splits = builder.info.splits.items()
    return LazySplits(
        [split for split, info in splits if info.num_examples],
        lambda split: _split(builder, split, channels, read_labels),
    )


def _folder(name: str, data_dir: str, field: str) -> Any:
    """The newest prepared version of a set, or the named one."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    where = "data.data_dir" if data_dir else "TFDS_DATA_DIR"
    require_run_folder(root, where)
    sets = bucket.open_place(root, where)
    if data_dir:
        require(sets.is_dir(), where, "a folder of TFDS sets", root)
    inner, _, version = name.partition(":")
    base = sets / inner
    versions = [p.parent for p in base.glob("*/dataset_info.json")]
    if not versions and "/" not in inner:
        # The one config of a set that is named without it.
        versions = [p.parent for p in base.glob("*/*/dataset_info.json")]
        configs = sorted({p.parent.name for p in versions})
        if len(configs) > 1:
            raise ConfigError(field, f"{inner}/CONFIG, one of {configs}", name)
    versions = [p for p in versions if not version or p.name == version]
    if not versions:
        names = [p.name for p in sets.glob("[a-z]*/")]
        hint = suggest([x for x in near_names(name, names, 1) if x != name])
        text = (
            f"{hint and hint + ' '}expected {name} prepared by TFDS in {root}, found "
            f"none; prepare it with: {_prepare(name, data_dir)}"
        )
        raise ConfigError(field, reason=text)
    return max(versions, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def _prepare(name: str, data_dir: str) -> str:
    """The command that prepares a set."""
    return f"kdjax prepare {name}{data_dir and f' --data-dir {data_dir}'}"


def _split(builder: Any, split: str, channels: int, read_labels: bool) -> Source:
    import tensorflow_datasets as tfds

    features, info = builder.info.features, builder.info.splits[split]
    full = f"{builder.info.full_name} {split}"
    records = builder.as_data_source(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    height, width, depth = features["image"].shape
    channels = channels or (depth if depth in (1, 3) else 3)

    def read(index: int) -> np.ndarray:
        return pictures.decode(records[index]["image"], channels, f"{full} {index}")

    about = f"{full} {info.num_bytes} {list(info.shard_lengths)}"
    files = [os.fspath(file) for file in info.filepaths]

    @functools.cache
    def content() -> str:
        if bucket.is_url(files[0]):
            return f"{about} {channels} {bucket.states_of(files)}"
        names = [os.path.basename(file) for file in files]
        return f"{about} {channels} {fingerprint_files(files, names)}"

    n = info.num_examples
    shape = (height, width, channels)
    if height is None or width is None:
        shape = first_shape(read, n, f"data.name ({full})")
    classes, names, labels = 0, (), np.full(n, UNLABELED, np.int32)
    if "label" in features:
        classes = int(features["label"].num_classes)
        names = class_names(features["label"])
        if read_labels:
            labels = _labels(records, n, about, files)
        else:
            labels = np.zeros(n, np.int32)
    return Source(
        read=read,
        labels=labels,
        ids=np.arange(n, dtype=np.int32),
        classes=classes,
        shape=shape,
        resizes=False,
        name_of=lambda index: f"{full} {index}",
        content=content,
        names=names,
    )


def _labels(records: Any, n: int, about: str, files: list[str]) -> np.ndarray:
    """All labels of a split: -1 where TFDS has none, as in ImageNet's test split."""
    # Identified by the files' sizes and times: a hash would take as long as a read.
    stem = fingerprint_bytes(f"{about} {bucket.states_of(files)}".encode())
    cached = user_cache() / f"labels-{stem}.i4"
    if n >= KEEP_LABELS_FROM and cached.is_file() and cached.stat().st_size == 4 * n:
        return np.fromfile(cached, "<i4").astype(np.int32)
    values: list[int] = []
    for start in range(0, n, CHUNK):
        indices = range(start, min(start + CHUNK, n))
        values += [int(row["label"]) for row in records.__getitems__(list(indices))]
    labels = np.array(values, np.int32)
    if n >= KEEP_LABELS_FROM:
        cached.parent.mkdir(parents=True, exist_ok=True)
        runlog.write_bytes(cached, labels.astype("<i4").tobytes())
    return labels
