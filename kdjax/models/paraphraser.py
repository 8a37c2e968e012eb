"""Paraphraser and translator of factor transfer, Kim et al. 2018, arXiv 1802.04977.

The paraphraser is named in configs as `kdjax.models.paraphraser:paraphraser`.
"""

import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import ModelConfig
from kdjax.core.types import Array, Model, PyTree
from kdjax.models.adapters import from_linen
from kdjax.models.layers import conv, norm


class Convolutions(nn.Module):
    """3x3 convolutions of these widths, each with BatchNorm and leaky ReLU of 0.1.

    axis_name: axis of `pmap` over which BatchNorm takes its statistics.
    """

    widths: tuple[int, ...]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        for width in self.widths:
            x = norm("batch", width, train, self.axis_name)(conv(width, 3)(x))
            x = nn.leaky_relu(x, 0.1)
        return x


def translator(
    student_channels: int, factors: int, axis_name: str | None
) -> Convolutions:
    """From the student's map to its factors."""
    return Convolutions((student_channels, factors, factors), axis_name)


class Paraphraser(nn.Module):
    """An auto-encoder of feature maps, `[batch, height, width, channels]`.

    channels: of the maps.
    factors: channels of the code.

    It returns the means of the factors over positions, `[batch, factors]`, in place of
    logits, and the taps "factor" and "map", the code and the map made from it.
    """

    channels: int
    factors: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, dict[str, Array]]:
        wide, narrow = self.channels, self.factors
        factor = Convolutions((wide, narrow, narrow), name="encoder")(x, train)
        made = Convolutions((narrow, wide, wide), name="decoder")(factor, train)
        return factor.mean((1, 2)), {"factor": factor, "map": made}


def paraphraser(config: ModelConfig, classes: int) -> Model:
    """A paraphraser of maps of `config.width` channels, with half as many factors.

    Its `init(key, inputs)` uses no inputs, so that it can be made without a map.
    """
    width = config.width
    model = from_linen(Paraphraser(width, max(1, width // 2)))

    def init(key: Array, inputs: PyTree) -> PyTree:
        return model.init(key, jnp.zeros((1, 4, 4, width)))

    return Model(init, model.apply)
