"""A trained student by itself: images in, logits out."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.augment import views
from kdjax.config import require
from kdjax.core.types import Array, Model, PyTree


@dataclasses.dataclass(frozen=True)
class Student:
    """A trained network with everything between an image and its logits.

    `kdjax.load` makes one: `student(images)` are the logits of uint8 images.
    """

    module: Model
    """The network: `module.apply(variables, images, train=False, rngs=None)`, with
    images in [-1, 1] of the student's resolution."""
    variables: PyTree
    """Its variables; with `members` several, each leaf has a leading axis of them."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    resolution: int
    """Height and width of the network's input, in pixels."""
    channels: int
    """Channels of the images: 1 or 3."""
    evaluation_crop: float = 0.0
    """Crop of the evaluation views, as in `kdjax.config.Views`."""
    store: int = 0
    """Side to which the run's data set resized whole images; 0: not resized."""
    members: int = 0
    """Members of an ensemble of seeds; 0 for a single seed."""

    def apply(
        self, variables: PyTree, images: Array, sizes: Array | None = None
    ) -> Array:
        """Logits `[n, classes]` of images: a pure function, for `jax.jit`.

        Images are resized and normalized as in the run's evaluation. The logits of an
        ensemble are the logarithms of the mean of its members' probabilities.

        Args:
            variables: `self.variables`, or others of the same shapes.
            images: uint8 `[n, height, width, channels]`.
            sizes: int `[n, 2]`, height and width of images that were resized to a
                square before.
        """
        crop = self.evaluation_crop
        inputs = views.evaluation_view(images, self.resolution, crop, sizes)

        def logits(member: PyTree) -> Array:
            output, _ = self.module.apply(member, inputs, train=False, rngs=None)
            return output.logits

        if not self.members:
            return logits(variables)
        # One after another: a vmapped convolution is slow on CPU.
        log_probs = jax.lax.map(lambda v: jax.nn.log_softmax(logits(v)), variables)
        return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(self.members)

    def __call__(self, images: Any, sizes: Any = None) -> np.ndarray:
        """Logits, float32 `[n, classes]`.

        images, sizes: as in `apply`.

        Raises ConfigError for images of another type, rank or number of channels.
        """
        images = np.asarray(images)
        got = f"{images.dtype} {images.shape}"
        ok = images.dtype == np.uint8 and images.ndim == 4
        ok = ok and images.shape[-1] == self.channels and images.size > 0
        expected = f"uint8 [n, height, width, {self.channels}] (channels last)"
        require(ok, "images", expected, got)
        return np.asarray(self._compiled(self.variables, images, sizes))

    @functools.cached_property
    def _compiled(self) -> Any:
        return jax.jit(self.apply)

    @property
    def input_size(self) -> int:
        """Side of the square images for which the views resize nothing but a crop."""
        return round(max(self.evaluation_crop, 1.0) * self.resolution)
