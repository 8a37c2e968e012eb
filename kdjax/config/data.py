"""Which images, and what is seen of them."""

import dataclasses
from typing import Literal

from kdjax.config.checks import is_number, require

Mode = Literal["fixed", "independent", "consistent", "function_matching"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and which part of them for what."""

    name: str = "digits"
    """`digits`, `cifar10`, `imagenet2012` and others by name, `tfds:NAME`,
    `folder:PATH` (PATH/split/class/*.jpg), `module:function` (or `file.py:function`) of
    your own that returns {split: (uint8 images [n, height, width, channels], int labels
    [n] or None)}; several joined with `+`."""
    train: str = "train[:200]"
    """Split that the student is taught on. Sub-splits as in TFDS: train[:90%],
    train[200:], train[-5%:].
    `default`, here and below, is the split that results on the set are reported on."""
    validation: str = "validation"
    """Split for curves and for choosing the best checkpoint."""
    test: str = "test"
    """Split for the final table; nothing is ever chosen on it."""
    train_name: str = ""
    """Another data set to take the training split from, as images without labels: only
    a teacher can say what they are."""
    classes: int = 0
    """How many classes there are, where the set does not name them, as arrays do not;
    0: as many as the highest label of the training split says."""
    data_dir: str = ""
    """Where TFDS has its sets; empty for its own default."""
    channels: Literal[0, 1, 3] = 0
    """What every image is made, grey or RGB; 0 as the set says, or the first image of a
    folder."""
    store: int = 0
    """Side in pixels of the square that every whole image is resized to before it is
    kept; 0 does not resize, and all images must have one shape."""
    on_corrupt: Literal["raise", "skip"] = "raise"
    """What to do about an image that cannot be decoded: name it and stop, or leave it
    out and say how many."""
    feed: Literal["auto", "resident", "streamed"] = "auto"
    """resident: the decoded images on the devices. streamed: decoded anew each pass.
    auto: resident if they fit. Changes speed, not results."""
    workers: int = 4
    """Threads that decode images."""
    crop: Literal["device", "host"] = "device"
    """streamed only: where crops are cut. host: out of each image at its own
    resolution, so that only the crops travel; `store` is then not used for training.
    Without `store` the views are the same either way, but for single levels of 255
    where a pixel lies near half-way between two."""

    def check(self, at: str = "data") -> None:
        for field in ("name", "train", "validation", "test"):
            value = getattr(self, field)
            require(bool(value), f"{at}.{field}", "a name", value)
        ok = self.classes == 0 or self.classes >= 2
        require(ok, f"{at}.classes", "at least 2, or 0 (as the set says)", self.classes)
        require(self.store >= 0, f"{at}.store", ">= 0 pixels", self.store)
        require(self.workers >= 0, f"{at}.workers", ">= 0 threads", self.workers)
        ok = self.crop == "device" or self.feed == "streamed"
        require(ok, f"{at}.crop", f"device unless {at}.feed is streamed", self.crop)


@dataclasses.dataclass(frozen=True)
class Views:
    """What teacher and student see of an image (section 1.3 of the paper).

    fixed: the teacher sees the whole image or its centre, always the same; the student
    a random crop.
    independent: each side has a random crop of its own.
    consistent: both see one random crop.
    function_matching: both see one random crop, then one mixup with a coefficient drawn
    uniformly from [0, 1] for the batch.
    """

    mode: Mode = "function_matching"
    """What teacher and student share."""
    area: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest area of a crop, as a share of the image."""
    aspect: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest width/height of a crop; must bracket 1."""
    flip: bool = True
    """Mirror half of the crops left to right."""
    crop: Literal["inception", "random"] = "inception"
    """inception: any area and aspect of the ranges above. random: the mild crop, a part
    of both sides of `share`, the same for every image, anywhere."""
    share: float = 0.875
    """Side of a mild or central crop, as a share of the image's: 0.875 is 224 of 256
    pixels."""
    still: Literal["whole", "central"] = "whole"
    """fixed only: what the teacher sees, the whole image or its central crop."""
    method: Literal["linear", "cubic", "lanczos3"] = "linear"
    """How crops are resized."""
    antialias: bool = False
    """Whether a crop that is made smaller is averaged first; the paper does not."""
    mix: Literal["mixup", "cutmix"] = "mixup"
    """function_matching only: blend two images, or put a box of one into the other."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Colour jitter: largest change of brightness, contrast and saturation (0.4: by
    0.6 to 1.4 times) and largest turn of the hue (0.1: a tenth of the circle)."""
    randaugment: tuple[int, int] = (0, 0)
    """RandAugment: operations an image, and their magnitude from 0 to 10."""
    central: float = 0.0
    """Evaluation: 0 sees the whole image. Else the smaller side is resized to `central`
    times the resolution and the central square is seen: 1.25 is 160 to 128 pixels, as
    the paper's small sets; 1.143 is 256 to 224, as its ImageNet."""

    def check(self, at: str = "views") -> None:
        low, high = self.area
        ok = is_number(low) and is_number(high) and 0 < low <= high <= 1
        require(ok, f"{at}.area", "0 < low <= high <= 1", self.area)
        low, high = self.aspect
        ok = is_number(low) and is_number(high) and 0 < low <= 1 <= high
        require(ok, f"{at}.aspect", "0 < low <= 1 <= high", self.aspect)
        ok = is_number(self.share) and 0 < self.share <= 1
        require(ok, f"{at}.share", "0 < share <= 1", self.share)
        *factors, hue = self.jitter
        ok = all(is_number(x) and 0 <= x <= 1 for x in factors)
        ok = ok and is_number(hue) and 0 <= hue <= 0.5
        want = "brightness, contrast, saturation in [0, 1], hue in [0, 0.5]"
        require(ok, f"{at}.jitter", want, self.jitter)
        count, magnitude = self.randaugment
        ok = count >= 0 and 0 <= magnitude <= 10
        want = "(operations >= 0, magnitude 0 to 10)"
        require(ok, f"{at}.randaugment", want, self.randaugment)
        ok = is_number(self.central) and (self.central == 0 or self.central >= 1)
        require(ok, f"{at}.central", "0 or a number >= 1", self.central)
