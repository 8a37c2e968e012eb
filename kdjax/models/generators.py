"""A generator and a critic of images, for GANs and data-free distillation.

They are named in configs as functions: `kdjax.models.generators:image_generator`,
`class_generator`, `image_critic` and `spectral_critic`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import ModelConfig, require
from kdjax.core.types import Array, Model, PyTree
from kdjax.models.adapters import from_linen
from kdjax.models.layers import conv, mean_pool, norm, require_images

LATENT = 100
# Channels of a layer for each unit of `ModelConfig.width`, whose default is 2.
_CHANNELS = 32


class ImageGenerator(nn.Module):
    """Images from codes: a linear layer, two times resize and convolution, and tanh.

    shape: (height, width, channels) of the images.
    features: channels of the last hidden layer; the others have twice as many.

    Called with codes `[batch, latent]` it returns the images as rows, and the tap
    "image", `[batch, height, width, channels]` in [-1, 1]. It begins at a quarter of
    the size. Resize and convolution, in place of a transposed convolution, leave no
    checkerboard. BatchNorm has momentum 0.9 and eps 1e-5.

    The generators of DAFL (arXiv 1904.01186) and ZSKT (1905.09768) have this form, with
    a BatchNorm after tanh, which would leave the range of the pixels.
    """

    shape: tuple[int, int, int]
    features: int = 64

    @nn.compact
    def __call__(
        self, codes: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        height, width, channels = self.shape
        # Rounded up, so that any size can be made.
        sizes = [(-(-height // k), -(-width // k)) for k in (4, 2, 1)]
        wide = 2 * self.features
        first = sizes[0]
        x = nn.Dense(first[0] * first[1] * wide, name="dense")(codes)
        x = x.reshape(len(codes), *first, wide)
        x = norm("batch", wide, train, name="norm0")(x)
        for i, features in enumerate((wide, self.features), 1):
            x = jax.image.resize(x, (len(x), *sizes[i], x.shape[-1]), "nearest")
            x = conv(features, 3, name=f"conv{i}")(x)
            x = norm("batch", features, train, name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        images = jnp.tanh(conv(channels, 3, bias=True, name="image")(x))
        return images.reshape(len(images), -1), {"image": images}


class ImageCritic(nn.Module):
    """Critic of images: convolutions of stride 2 with leaky ReLU, and two heads.

    classes: number of logits, as in AC-GAN (arXiv 1610.09585).
    features: channels of the first convolution; the next ones have two and four times
        as many.
    spectral: every layer is divided by its spectral norm (arXiv 1802.05957), from one
        step of the power iteration at each step of training.

    Called with images `[batch, height, width, channels]` it returns logits of the
    classes, and taps: "score", `[batch]`, high for real images, and "embedding". There
    is no BatchNorm, whose statistics would mix real and generated images.
    """

    classes: int = 10
    features: int = 64
    spectral: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        require_images(images)

        def layer(module: nn.Module, x: jax.Array) -> jax.Array:
            if not self.spectral:
                return module(x)
            name = f"{module.name}_spectral"
            return nn.SpectralNorm(module, name=name)(x, update_stats=train)

        x = images
        for i in range(3):
            features = self.features * 2**i
            module = conv(features, 3, stride=2 if i else 1, bias=True, name=f"conv{i}")
            x = nn.leaky_relu(layer(module, x), 0.2)
        embedding = mean_pool(x)
        logits = layer(nn.Dense(self.classes, name="head"), embedding)
        score = layer(nn.Dense(1, name="score"), embedding)[:, 0]
        return logits, {"score": score, "embedding": embedding}


def image_generator(config: ModelConfig, classes: int) -> Model:
    """A generator of images from noise, `[batch, LATENT]`, with 32 * width features.

    Its `init(key, images)` takes images of the size and channels that it is to make.
    """
    return make_generator(config, LATENT)


def class_generator(config: ModelConfig, classes: int) -> Model:
    """A generator of images of a class, from codes of `class_codes`."""
    return make_generator(config, LATENT + classes)


def image_critic(config: ModelConfig, classes: int) -> Model:
    """A critic of images, with 32 * width features."""
    return from_linen(ImageCritic(classes, _CHANNELS * config.width))


def spectral_critic(config: ModelConfig, classes: int) -> Model:
    """A critic of images with spectral normalization."""
    return from_linen(ImageCritic(classes, _CHANNELS * config.width, spectral=True))


def make_generator(config: ModelConfig, latent: int) -> Model:
    """A generator of square images from codes `[batch, latent]`.

    config: its `resolution` is the size; `width` counts 32 features.
    """
    size, features = config.resolution, _CHANNELS * config.width

    @functools.cache
    def network(channels: int) -> Model:
        return from_linen(ImageGenerator((size, size, channels), features))

    def init(key: Array, images: Array) -> PyTree:
        require_images(images)
        ok = images.shape[1:3] == (size, size)
        expected = f"{images.shape[1]}, as the images are {images.shape[1:3]}"
        require(ok, "model.resolution", expected, size)
        codes = jnp.zeros((1, latent), images.dtype)
        return network(images.shape[-1]).init(key, codes)

    def apply(variables, codes, *, train=False, rngs=None):
        # The number of channels is that of the images of `init`.
        channels = variables["params"]["image"]["kernel"].shape[-1]
        return network(channels).apply(variables, codes, train=train, rngs=rngs)

    return Model(init, apply)


def noise_codes(key: Array, count: int) -> Array:
    """Normal noise, `[count, LATENT]`."""
    return jax.random.normal(key, (count, LATENT))


def class_codes(key: Array, labels: Array, classes: int) -> Array:
    """Codes of a class: normal noise and the one-hot label.

    labels: `[batch]` class ids. The result is `[batch, LATENT + classes]`.
    """
    noise = noise_codes(key, len(labels))
    return jnp.concatenate([noise, jax.nn.one_hot(labels, classes)], axis=-1)
