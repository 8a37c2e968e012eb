"""A tiny data set, as TFDS prepares it."""

import io

import numpy as np
from PIL import Image

N = 7


def pixels(i):
    return np.random.default_rng(i).integers(0, 256, (4 + i, 6, 3), dtype=np.uint8)


def prepare_tiny(folder):
    """Prepare `tiny`, PNGs of different heights, as array_record; the folder's name."""
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        name = "tiny"

        def _info(self):
            features = {
                "key": tfds.features.Scalar(np.int64),
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=5),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(N):
                buffer = io.BytesIO()
                Image.fromarray(pixels(i)).save(buffer, format="PNG")
                buffer.seek(0)
                yield i, {"key": i, "image": buffer, "label": i % 3}

    Tiny(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder)
