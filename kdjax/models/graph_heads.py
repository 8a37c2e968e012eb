"""Attention heads of multi-head graph distillation, Lee, Song 2019, arXiv 1907.02226.

They are named in configs as `kdjax.models.graph_heads:graph_heads`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from kdjax.config import ModelConfig
from kdjax.core.numerics import l2_normalize
from kdjax.core.types import Array, Model, PyTree
from kdjax.models.adapters import from_linen
from kdjax.models.layers import FAN_OUT, norm

_EPSILON = 1e-5


class Attention(nn.Module):
    """An estimate of each later vector from the earlier ones of the whole batch.

    A head compares a later vector `v_i` with all earlier ones `u_j`, each behind a
    linear map and BatchNorm: softmax_j <S v_i, R u_j>. These shares weigh the earlier
    vectors. In training, every row of the graphs loses about half of its heads.

    heads: number of heads.
    """

    heads: int

    @nn.compact
    def __call__(self, later: Array, earlier: Array, train: bool) -> Array:
        wide = _head_width(later.shape[-1], earlier.shape[-1])

        def normed(x: Array, width: int, name: str) -> Array:
            dense = nn.Dense(width, use_bias=False, kernel_init=FAN_OUT, name=name)
            named = f"{name}_norm"
            return norm("batch", width, train, name=named, epsilon=_EPSILON)(dense(x))

        pair = (later, "sender"), (earlier, "receiver")
        sent, received = (
            normed(x, self.heads * wide, name).reshape(-1, self.heads, wide)
            for x, name in pair
        )
        graph = jax.nn.softmax(jnp.einsum("ihk,jhk->hij", sent, received), -1)
        if train:
            graph *= _keep_heads(self.make_rng("dropout"), *graph.shape[:2])
        hidden = nn.relu(normed(earlier, wide, "hidden"))
        mixed = jnp.einsum("hij,jk->ihk", graph, hidden).reshape(len(later), -1)
        out = nn.Dense(later.shape[-1], kernel_init=FAN_OUT, name="estimate")
        return l2_normalize(out(mixed))


class Heads(nn.Module):
    """Attention between the vectors of consecutive taps.

    widths: those of the vectors, from the first tap to the last.
    heads: number of heads between two taps.

    The vectors lie beside each other, `[batch, sum of widths]`. It returns estimates
    of all but the first, of length 1, as `[batch, sum of those widths]`.
    """

    widths: tuple[int, ...]
    heads: int = 8

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        vectors = split_vectors(x, self.widths)
        made = [
            Attention(self.heads, name=f"step{step}")(later, earlier, train)
            for step, (earlier, later) in enumerate(
                zip(vectors, vectors[1:], strict=False)
            )
        ]
        return jnp.concatenate(made, -1)


def make_heads(widths: Sequence[int], heads: int = 8) -> Model:
    """Heads between taps of these channels, for networks other than ResNets.

    `init(key, inputs)` uses no inputs, so that they can be made without vectors.
    """
    model = from_linen(Heads(tuple(widths), heads))

    def init(key: Array, inputs: PyTree) -> PyTree:
        return model.init(key, jnp.zeros((2, sum(widths))))

    return Model(init, model.apply)


def graph_heads(config: ModelConfig, classes: int) -> Model:
    """Eight heads between the three stages of a ResNet.

    They have `config.width` channels, twice and four times as many.
    """
    return make_heads([config.width * factor for factor in (1, 2, 4)])


def split_vectors(x: Array, widths: Sequence[int]) -> list[Array]:
    """Vectors of these widths out of `[batch, sum of widths]`."""
    ends = [sum(widths[:i]) for i in range(1, len(widths))]
    return jnp.split(x, ends, axis=-1)


def find_widths(variables: PyTree) -> tuple[int, ...]:
    """The widths of the vectors that these heads take."""
    params = variables["params"]
    steps = [params[f"step{i}"] for i in range(len(params))]
    first = steps[0]["receiver"]["kernel"].shape[0]
    return (first, *(step["sender"]["kernel"].shape[0] for step in steps))


def head_matrices(variables: PyTree) -> list[tuple[Array, Array]]:
    """Sender and receiver of each step, `[heads, K, width + 1]`, for `losses.mhgd`.

    BatchNorm, with its stored statistics, is part of the matrix. The last column is
    the bias, so that vectors need a 1 behind them.
    """
    widths, matrices = find_widths(variables), []
    for i, (earlier, later) in enumerate(zip(widths, widths[1:], strict=False)):
        params, stats = (
            variables[name][f"step{i}"] for name in ("params", "batch_stats")
        )
        wide, pair = _head_width(later, earlier), []
        for name in ("sender", "receiver"):
            own, stored = params[f"{name}_norm"], stats[f"{name}_norm"]
            gain = own["scale"] / jnp.sqrt(stored["var"] + _EPSILON)
            bias = own["bias"] - gain * stored["mean"]
            whole = jnp.concatenate([gain[None] * params[name]["kernel"], bias[None]])
            matrix = whole.reshape(len(whole), -1, wide)
            pair.append(matrix.transpose(1, 2, 0))
        matrices.append((pair[0], pair[1]))
    return matrices


def _head_width(later: int, earlier: int) -> int:
    return (later + earlier) // 2


def _keep_heads(key: Array, heads: int, rows: int) -> Array:
    """Ones and zeros `[heads, rows, 1]`: each row keeps the heads above their mean."""
    noise = jax.random.normal(key, (heads, rows, 1))
    return (noise > noise.mean(0, keepdims=True)).astype(noise.dtype)
