"""Blocks computed again for the gradient: equal values, and blocks of every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kdjax import from_linen
from kdjax.config import ConfigError, ModelConfig
from kdjax.models import zoo
from kdjax.models.rematerialize import find_blocks, rematerialize


def make(name, size=32):
    model = zoo.make_model(ModelConfig(name=name, norm="auto", resolution=size), 10)
    images = jax.random.normal(jax.random.key(1), (4, size, size, 3))
    return model, images


class Layer(nn.Module):
    """Dropout, statistics, and a flag that may be given by position."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return x + nn.Dropout(0.5, deterministic=not train)(nn.relu(x))


class Layers(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8)(x.reshape(len(x), -1))
        for i in range(3):
            x = Layer()(x, train) if i else Layer()(x, train=train)
        return nn.Dense(10)(x)


def gradients(model, variables, images):
    """Logits, new state and gradients; each network is traced once."""

    def loss(params):
        every = {**variables, "params": params}
        rngs = {"dropout": jax.random.key(3)}
        output, state = model.apply(every, images, train=True, rngs=rngs)
        return jnp.sum(output.logits**2), (output.logits, state)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize("keep", ["nothing", "products"])
def test_values_state_and_gradients_are_equal(keep):
    model = from_linen(Layers())
    images = jax.random.normal(jax.random.key(1), (4, 3, 3, 2))
    variables = model.init(jax.random.key(0), images)
    plain = gradients(model, variables, images)
    again = gradients(rematerialize(model, keep), variables, images)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), plain, again
    )
    assert len(jax.tree.leaves(plain)) > 10


def products(keep):
    """The products in the gradient of a network, counted in its program."""
    model = from_linen(Layers())
    model = rematerialize(model, keep) if keep else model
    images = jnp.zeros((4, 3, 3, 2))
    variables = from_linen(Layers()).init(jax.random.key(0), images)

    def loss(params):
        every = {**variables, "params": params}
        rngs = {"dropout": jax.random.key(3)}
        output, _ = model.apply(every, images, train=True, rngs=rngs)
        return jnp.sum(output.logits)

    return str(jax.make_jaxpr(jax.grad(loss))(variables["params"])).count("dot_general")


def test_what_is_computed_again():
    """Three blocks of one product each: none of them with `products`."""
    assert products("nothing") == products("products") + 3
    assert products("products") == products("")


@pytest.mark.parametrize(
    ("name", "size", "first", "count"),
    [
        ("resnet20", 32, ("BasicBlock_0",), 9),
        pytest.param("bit_r50x1", 64, ("block1", "unit01"), 16, marks=pytest.mark.full),
        pytest.param(
            "vit_ti16",
            32,
            ("Transformer", "encoderblock_0"),
            12,
            marks=pytest.mark.full,
        ),
        pytest.param("efficientnet_lite0", 64, ("block0",), 16, marks=pytest.mark.full),
        ("vgg8", 32, None, 0),
    ],
)
def test_blocks_are_residual_blocks_and_layers(name, size, first, count):
    model, images = make(name, size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def call():
        rngs = {"dropout": jax.random.key(0)}
        return jax.eval_shape(
            lambda v: model.apply(v, images, train=True, rngs=rngs), shapes
        )

    found = find_blocks(call)
    assert len(found) == count and (first is None or first in found)


def test_a_network_without_blocks():
    model, images = make("vgg8")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    again = rematerialize(model, field="compute.remat")
    with pytest.raises(ConfigError, match=r"compute.remat: expected a Flax Linen"):
        jax.eval_shape(lambda v: again.apply(v, images, train=True, rngs=None), shapes)
    # Evaluation has no gradient.
    jax.eval_shape(lambda v: again.apply(v, images, train=False, rngs=None), shapes)
    with pytest.raises(ValueError, match="keep: expected one of"):
        rematerialize(model, "everything")
