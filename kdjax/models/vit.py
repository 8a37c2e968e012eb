"""Vision transformers with a class token and, for DeiT, a distillation token.

Names and shapes of the variables are those of the published JAX networks.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import require


class Size(NamedTuple):
    """Width, layers and heads of one size, for a letter of the names."""

    width: int
    layers: int
    heads: int


SIZES = {"Ti": Size(192, 12, 3), "S": Size(384, 12, 6), "B": Size(768, 12, 12)}
_xavier = nn.initializers.xavier_uniform()


class Attention(nn.Module):
    """Self-attention of several heads.

    `[batch, tokens, width]` -> the same shape, and the weights `[batch, heads, tokens,
    tokens]` (queries, then keys) with `maps`, else None.
    """

    heads: int
    maps: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        width = x.shape[-1]
        size = (self.heads, width // self.heads)
        query, key, value = (
            nn.DenseGeneral(size, kernel_init=_xavier, name=name)(x)
            for name in ("query", "key", "value")
        )
        weights = None
        if self.maps:
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
            scores = scores.astype(jnp.float32) * size[1] ** -0.5
            weights = jax.nn.softmax(scores).astype(x.dtype)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        else:
            y = jax.nn.dot_product_attention(query, key, value)
        out = nn.DenseGeneral(width, axis=(-2, -1), kernel_init=_xavier, name="out")
        return out(y), weights


class Mlp(nn.Module):
    """Two layers, the inner one four times as wide, with GELU between them."""

    exact_gelu: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        bias = nn.initializers.normal(1e-6)
        dense = partial(nn.Dense, kernel_init=_xavier, bias_init=bias)
        y = dense(4 * width, name="Dense_0")(x)
        y = nn.gelu(y, approximate=not self.exact_gelu)
        return dense(width, name="Dense_1")(y)


class Layer(nn.Module):
    """Attention and two-layer network, each on the normalized input, each added."""

    heads: int
    exact_gelu: bool
    maps: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        y = nn.LayerNorm(name="LayerNorm_0")(x)
        name = "MultiHeadDotProductAttention_0"
        y, weights = Attention(self.heads, self.maps, name=name)(y)
        x = x + y
        y = nn.LayerNorm(name="LayerNorm_1")(x)
        return x + Mlp(self.exact_gelu, name="MlpBlock_0")(y), weights


class Encoder(nn.Module):
    """The layers and the last norm; returns tokens and taps."""

    size: Size
    exact_gelu: bool
    maps: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        taps = {}
        for i in range(self.size.layers):
            name = f"encoderblock_{i}"
            layer = Layer(self.size.heads, self.exact_gelu, self.maps, name=name)
            x, weights = layer(x)
            taps[f"block{i}"] = x
            if weights is not None:
                taps[f"attention{i}"] = weights
        return nn.LayerNorm(name="encoder_norm")(x), taps


class ViT(nn.Module):
    """Vision transformer with named activations.

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image
    Recognition at Scale", arXiv 2010.11929; `distilled` is that of Touvron et al. 2020,
    "Training data-efficient image transformers & distillation through attention",
    arXiv 2012.12877. No dropout. Position embeddings are learned and belong to one
    image size.

    size: "Ti", "S" or "B", or a `Size` of your own.
    patch: side in pixels of a patch.
    classes: number of logits.
    distilled: a second token with a head of its own. The logits are then the mean of
        the two heads, and taps "class_logits" and "distillation_logits" the two.
    exact_gelu: GELU by the error function, as the PyTorch networks have it, instead of
        by tanh, as the JAX networks have it.
    attention: tap "attention0", ... too, `[batch, heads, tokens, tokens]`.

    Called with images `[batch, height, width, channels]` it returns `(logits, taps)`,
    logits `[batch, classes]`, taps "stem" (the tokens with their positions) and
    "block0", ... `[batch, tokens, width]`, the class token first, then that of
    distillation, and "embedding" `[batch, width]`, the class token after the last norm.

    Raises ValueError naming the field (or `images`) that cannot be used.
    """

    size: str | Size = "S"
    patch: int = 16
    classes: int = 1000
    distilled: bool = False
    exact_gelu: bool = False
    attention: bool = False

    def __post_init__(self) -> None:
        is_size = isinstance(self.size, tuple) or self.size in SIZES
        require(is_size, "size", f"one of {sorted(SIZES)} or a Size", self.size)
        width, _, heads = sizes(self.size)
        require(width % heads == 0, "size", "a width that heads divide", self.size)
        require(self.patch >= 1, "patch", "at least 1", self.patch)
        require(self.classes >= 1, "classes", "at least 1", self.classes)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del train
        self._check(images)
        size = sizes(self.size)
        x = self._tokens(images, size.width)
        encoder = Encoder(size, self.exact_gelu, self.attention, name="Transformer")
        y, taps = encoder(x)
        taps = {"stem": x, **taps, "embedding": y[:, 0]}
        logits = nn.Dense(self.classes, name="head")(y[:, 0])
        if self.distilled:
            taps["class_logits"] = logits
            head = nn.Dense(self.classes, name="head_dist")
            taps["distillation_logits"] = head(y[:, 1])
            logits = (taps["class_logits"] + taps["distillation_logits"]) / 2
        return logits, taps

    def _check(self, images: jax.Array) -> None:
        expected = "[batch, height, width, channels]"
        require(images.ndim == 4, "images", expected, images.shape)
        divides = images.shape[1] % self.patch == 0 == images.shape[2] % self.patch
        expected = f"height and width in multiples of {self.patch}"
        require(divides, "images", expected, images.shape)

    def _tokens(self, images: jax.Array, width: int) -> jax.Array:
        sides = (self.patch, self.patch)
        embed = nn.Conv(width, sides, sides, padding="VALID", name="embedding")
        x = embed(images)
        x = x.reshape(x.shape[0], -1, width)
        names = ("cls", "dist") if self.distilled else ("cls",)
        for name in reversed(names):
            token = self.param(name, nn.initializers.zeros, (1, 1, width))
            token = jnp.broadcast_to(jnp.asarray(token), (x.shape[0], 1, width))
            x = jnp.concatenate([token.astype(x.dtype), x], 1)
        normal = nn.initializers.normal(width**-0.5)
        shape = (1, x.shape[1], width)
        return x + jnp.asarray(self.param("pos_embedding", normal, shape))


def sizes(size: str | Size) -> Size:
    """The `Size` that a letter stands for, or the one given."""
    return SIZES[size] if isinstance(size, str) else size
