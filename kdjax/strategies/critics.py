"""Critics (discriminators), and checks of critics and generators.

A critic is a small network that separates two sources of activations or images. Its
score is high for the teacher's, or for real images; see `losses.adversarial_critic`.
"""

from typing import Any

import flax.linen as nn
import jax

from kdjax.config import ConfigError, Optim, require, require_known
from kdjax.core.types import Array, Model, PyTree
from kdjax.losses._generative.gan import CRITIC_VARIANTS
from kdjax.models import from_linen
from kdjax.models.generators import class_codes
from kdjax.models.layers import mean_pool
from kdjax.strategies.sampling import draw_rows
from kdjax.strategies.supervision import trace_output


def mlp_critic(width: int = 64, outputs: int = 1, layers: int = 2) -> Model:
    """A critic of vectors: hidden layers with ReLU, and a linear one.

    Args:
      width: units of each hidden layer.
      outputs: numbers for each example; the first is the score.
      layers: number of hidden layers.
    """
    hidden: list[Any] = []
    for _ in range(layers):
        hidden += [nn.Dense(width), nn.relu]
    return from_linen(nn.Sequential([*hidden, nn.Dense(outputs)]))


def map_critic(width: int = 64) -> Model:
    """A critic of feature maps: two 3x3 convolutions, the mean, and a linear layer."""
    convs = [nn.Conv(width, (3, 3)), nn.leaky_relu, nn.Conv(width, (3, 3))]
    return from_linen(nn.Sequential([*convs, nn.leaky_relu, mean_pool, nn.Dense(1)]))


def judge(critic: Model, params: PyTree, values: Array) -> Array:
    """The outputs of a critic without statistics: `[batch, outputs]`."""
    return critic.apply({"params": params}, values, train=True, rngs=None)[0].logits


def score(critic: Model, params: PyTree, values: Array) -> Array:
    """The scores of a critic: `[batch]`, its first output."""
    return judge(critic, params, values)[:, 0]


def critic_optim(rate: float) -> Optim:
    """The optimizer of a critic: no warm-up, as it should lead from the start."""
    return Optim(lr=rate, warmup=0)


def require_steps(student_steps: int) -> None:
    """Refuse a turn of the student without a step."""
    ok = student_steps >= 1
    require(ok, "strategy.options.student_steps", "at least 1 step", student_steps)


def require_variant(variant: str) -> None:
    """Refuse a GAN loss of an unknown name."""
    require_known(variant, CRITIC_VARIANTS, "strategy.options.variant")


def draw_codes(
    key: Array, count: int, classes: int, axis_name: str | None
) -> tuple[Array, Array]:
    """Uniform labels, `[count]`, and the codes of a generator for them."""
    one, two = jax.random.split(key)

    def draw(count: int) -> tuple[Array, Array]:
        labels = jax.random.randint(one, (count,), 0, classes)
        return labels, class_codes(two, labels, classes)

    return draw_rows(draw, count, axis_name)


def require_generator(
    generator: Model, variables: PyTree, codes: Array, shape: tuple[int, ...]
) -> None:
    """Refuse a network that makes no images of that shape, without the batch axis.

    Raises ConfigError of `networks.generator.model`.
    """
    field = "networks.generator.model"
    expected = "a generator with the tap image, such as class_generator"
    try:
        taps = trace_output(generator, variables, codes).taps
    except Exception as error:
        reason = f"expected {expected}, its call raised {type(error).__name__}"
        raise ConfigError(f"{field}.name", reason=reason) from error
    require("image" in taps, f"{field}.name", expected, sorted(taps))
    got, expected = taps["image"].shape[1:], f"images of shape {shape}"
    require(got == shape, f"{field}.resolution", expected, got)
