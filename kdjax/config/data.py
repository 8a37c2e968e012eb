"""Configs of the images, and of the views that teacher and student receive."""

import dataclasses
from typing import Literal

from kdjax.config.bounds import Count, Pixels, Share, Text
from kdjax.config.checks import require

Mode = Literal["fixed", "independent", "consistent", "function_matching"]


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set and its splits."""

    name: str = ""
    """`digits`, `cifar10`, `imagenet2012` and others by name, `tfds:NAME`,
    `folder:PATH` (PATH/split/class/*.jpg), or `module:function` (`file.py:function`) of
    your own. The function returns {split: (uint8 images [n, height, width, channels],
    int labels [n] or None)}. Several names are joined with `+`."""
    train: Text = "train"
    """Training split of the student. Sub-splits as in TFDS: train[:90%], train[200:],
    train[-5%:]. `default`, here and below, is the split on which results on the set are
    reported."""
    validation: Text = "validation"
    """Split for curves and for choosing the best checkpoint."""
    test: Text = "test"
    """Split for the final table; nothing is ever chosen on it."""
    shuffle_seed: Count | None = None
    """Seed of the order in which sub-splits as train[:90%] are cut out. A set that is
    sorted by class needs one. None: the order of the set."""
    train_name: str = ""
    """Another data set for the training split, used without its labels. Only a teacher
    can label it."""
    classes: Count = 0
    """Number of classes, for sets that do not name them, such as arrays. 0: the highest
    label of the training split plus one."""
    data_dir: str = ""
    """Folder of the TFDS data sets; empty: the default of TFDS."""
    channels: Literal[0, 1, 3] = 0
    """Image channels: 1 (gray) or 3 (RGB). 0 keeps those of the data set; of a folder,
    those of its first image."""
    store: Pixels = 0
    """Side of the square to which every whole image is resized before it is stored. 0
    does not resize; all images must then have one shape."""
    on_error: Literal["raise", "skip"] = "raise"
    """Treatment of an image that cannot be decoded. raise: stop and name it. skip:
    leave it out and report the number."""
    pipeline: Literal["auto", "device", "host"] = "auto"
    """Input pipeline. device: all decoded images on the devices. host: decoded again
    every epoch. auto: device if they fit. Changes speed, not results."""
    workers: Count = 4
    """Threads that decode images."""
    crop: Literal["device", "host"] = "device"
    """With `pipeline` host: the side that cuts crops. host: out of each image at its
    own resolution, so that only crops are transferred; `store` is then not used for
    training. Without `store` both give the same views, except for single levels of 255
    at pixels that lie near half-way between two."""

    def check(self, at: str = "data") -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        expected = "folder:PATH (PATH/train/CLASS/*.jpg), tfds:NAME or a set's name"
        require(bool(self.name), f"{at}.name", expected, self.name)
        expected = "0 (from the data set) or >= 2"
        require(self.classes != 1, f"{at}.classes", expected, self.classes)
        ok = self.crop == "device" or self.pipeline == "host"
        expected = f"device unless {at}.pipeline is host"
        require(ok, f"{at}.crop", expected, self.crop)


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of an image for teacher and student (arXiv 2106.05237, section 1.3).

    fixed: the teacher receives the whole image or its center, always the same; the
    student a random crop.
    independent: teacher and student receive a random crop each.
    consistent: both receive one random crop.
    function_matching: both receive one random crop, then one mixup with a coefficient
    drawn uniformly from [0, 1] for the batch.
    """

    mode: Mode = "function_matching"
    """Randomness that teacher and student share."""
    area: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest area of a crop, as a share of the image."""
    aspect: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest width/height of a crop; must bracket 1."""
    flip: bool = True
    """Mirror half of the crops left to right."""
    crop: Literal["inception", "random"] = "inception"
    """inception: any area and aspect of the ranges above. random: a mild crop with both
    sides `crop_fraction` of the image's, at a random position."""
    crop_fraction: Share = 0.875
    """Side of a mild or center crop, as a fraction of the image's: 0.875 is 224 of 256
    pixels."""
    fixed_view: Literal["whole", "center"] = "whole"
    """fixed only: the teacher's view, the whole image or its center crop."""
    method: Literal["linear", "cubic", "lanczos3"] = "linear"
    """Interpolation with which crops are resized."""
    antialias: bool = False
    """Average pixels before a crop is made smaller; the paper does not."""
    mix: Literal["mixup", "cutmix"] = "mixup"
    """function_matching only: blend two images, or paste a box of one."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Color jitter: largest change of brightness, contrast and saturation (0.4: by
    0.6 to 1.4 times) and largest turn of the hue (0.1: a tenth of the circle)."""
    randaugment: tuple[int, int] = (0, 0)
    """RandAugment: operations an image, and their magnitude from 0 to 10."""
    evaluation_crop: float = 0.0
    """Evaluation: 0 takes the whole image. Else the smaller side is resized to this
    multiple of the resolution, and the center square is taken. The paper has 1.25 (160
    to 128 pixels) for small sets and 1.143 (256 to 224) for ImageNet."""

    def check(self, at: str = "views") -> None:
        """Raise `ConfigError` for fields that do not fit together."""
        low, high = self.area
        ok = 0 < low <= high <= 1
        require(ok, f"{at}.area", "0 < low <= high <= 1", self.area)
        low, high = self.aspect
        ok = 0 < low <= 1 <= high
        require(ok, f"{at}.aspect", "0 < low <= 1 <= high", self.aspect)
        *factors, hue = self.jitter
        ok = all(0 <= x <= 1 for x in factors)
        ok = ok and 0 <= hue <= 0.5
        want = "brightness, contrast, saturation in [0, 1], hue in [0, 0.5]"
        require(ok, f"{at}.jitter", want, self.jitter)
        count, magnitude = self.randaugment
        ok = 0 <= count <= 100 and 0 <= magnitude <= 10
        want = "(operations 0 to 100, magnitude 0 to 10)"
        require(ok, f"{at}.randaugment", want, self.randaugment)
        crop = self.evaluation_crop
        ok = crop == 0 or crop >= 1
        require(ok, f"{at}.evaluation_crop", "0 or a number >= 1", crop)
