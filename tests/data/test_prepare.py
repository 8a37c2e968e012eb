"""Sets of TFDS prepared without TensorFlow, from archives made here."""

import gzip
import io
import pathlib
import sys
import tarfile

import numpy as np
import pytest

from kdjax.cli import main as cli
from kdjax.config import ConfigError
from kdjax.data import datasets, memory
from kdjax.data.prepare import prepare

N = 6
NAMES = [f"kind {i}" for i in range(100)]


def pixels(split, shape):
    """`[N, *shape]` uint8 images and labels of a split."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (N, *shape), np.uint8), np.arange(N, dtype=np.uint8)


def cifar_archive(prefix, files, label_files, labels):
    """The bytes of an archive in the binary format of CIFAR."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:

        def add(name, content):
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for name, count in label_files.items():
            add(name, ("\n".join(NAMES[:count]) + "\n\n").encode())
        for name, split in files.items():
            images, own = pixels(split, (32, 32, 3))
            columns = [own[:, None] % 20, own[:, None]][-labels:]
            rows = np.concatenate(
                [*columns, images.transpose(0, 3, 1, 2).reshape(N, -1)], axis=1
            )
            add(name, rows.astype(np.uint8).tobytes())
    return stream.getvalue()


def cifar10_archive():
    batches = {f"data_batch_{i}.bin": "train" for i in range(1, 6)}
    files = {**batches, "test_batch.bin": "test"}
    return cifar_archive("cifar-10-batches-bin", files, {"batches.meta.txt": 10}, 1)


def cifar100_archive():
    files = {"train.bin": "train", "test.bin": "test"}
    names = {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
    return cifar_archive("cifar-100-binary", files, names, 2)


def mnist_file(url):
    split = "test" if "t10k" in url else "train"
    images, labels = pixels(split, (28, 28))
    content = bytes(16) + images.tobytes() if "images" in url else bytes(8)
    return gzip.compress(content if "images" in url else content + labels.tobytes())


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """URLs that were downloaded; each gives a file made here."""
    import tensorflow_datasets as tfds

    urls = []

    def download(self, url):
        urls.append(url)
        make = {"cifar-10-": cifar10_archive, "cifar-100": cifar100_archive}
        found = [function for text, function in make.items() if text in url]
        path = tmp_path / f"download-{len(urls)}"
        path.write_bytes(found[0]() if found else mnist_file(url))
        return path

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    return urls


def check(name, where, splits, shape):
    """Every image with its label, read as a run reads it."""
    opened = datasets.load_splits(name, data_dir=where)
    for split in ("train", "test"):
        source = memory.decode_all(datasets.take_split(opened, split, "data"))
        images, labels = pixels(split, shape)
        images = images.reshape(N, *source.shape)
        assert len(source) == splits[split]
        for image, label in zip(source.images, source.labels, strict=True):
            np.testing.assert_array_equal(image, images[label])
        assert set(source.labels) == {*labels}
    assert "tensorflow" not in sys.modules
    return opened["train"]


def test_cifar10(downloads, tmp_path, capsys):
    where = str(tmp_path / "tfds")
    cli.main(["prepare", "cifar10", "--data-dir", where])
    folder = pathlib.Path(capsys.readouterr().out.splitlines()[-1])
    assert (folder / "dataset_info.json").is_file()
    source = check("cifar10", where, {"train": 5 * N, "test": N}, (32, 32, 3))
    assert source.names == tuple(NAMES[:10]) and source.classes == 10
    # A prepared set is left as it is.
    assert prepare("cifar10", where) == folder and len(downloads) == 1
    outline = datasets.load_splits("cifar10", data_dir=where, read_labels=False)
    assert set(outline["train"].labels) == {0} and outline["train"].names
    assert len(outline["train"]) == 5 * N and outline["train"].classes == 10


def test_cifar100(downloads, tmp_path):
    where = str(tmp_path)
    prepare("tfds:cifar100", where)
    source = check("cifar100", where, {"train": N, "test": N}, (32, 32, 3))
    assert source.names == tuple(NAMES) and source.classes == 100


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist(name, downloads, tmp_path):
    prepare(name, str(tmp_path))
    source = check(name, str(tmp_path), {"train": N, "test": N}, (28, 28))
    assert source.classes == 10 and len(downloads) == 4
    assert bool(source.names) is (name == "fashion_mnist")


def test_what_cannot_be_prepared_is_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    with pytest.raises(ConfigError, match="^name: expected a data set of TFDS, got"):
        prepare("no_such_set", str(tmp_path))

    def fail(error):
        def download(self, url):
            raise error

        monkeypatch.setattr(tfds.download.DownloadManager, "download", download)

    fail(ConnectionError("no route\nand more"))
    text = "^name: TFDS cannot prepare cifar10: ConnectionError: no route$"
    with pytest.raises(ConfigError, match=text):
        prepare("cifar10", str(tmp_path))
    fail(ModuleNotFoundError("No module named 'tensorflow'"))
    with pytest.raises(ConfigError, match="^name: TFDS needs TensorFlow to prepare"):
        prepare("cifar10", str(tmp_path))
