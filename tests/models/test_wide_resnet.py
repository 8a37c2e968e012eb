import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ConfigError, ModelConfig
from kdjax.models import make_model
from kdjax.models.wide_resnet import CheapConv, WideResNet
from kdjax.models.zoo import count_parameters
from tests.models import torch_cifar


@pytest.mark.full
def test_same_as_in_pytorch(float64):
    got = torch_cifar.answers(WideResNet(10, 1, 5))
    torch_cifar.assert_same(got, torch_cifar.EXPECTED["wide_resnet"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("depth", 15),
        ("depth", 4),
        ("factor", 0),
        ("classes", 0),
        ("norm", "layer"),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .*") as error:
        WideResNet(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")


def cost(inputs, outputs, size=None, groups=1, bottleneck=None):
    """Parameters of a cheap convolution, with its BatchNorms."""
    width = outputs // bottleneck if bottleneck else inputs
    size = size or width // groups
    first = inputs * width + 2 * width if bottleneck else 0
    return first + 9 * size * width + 2 * width + width * outputs


@pytest.mark.parametrize(
    "convs, sizes",
    [
        ("g1", {"size": 1}),
        ("g4", {"size": 4}),
        ("a2", {"groups": 2}),
        ("b2", {"bottleneck": 2}),
        ("g4b2", {"size": 4, "bottleneck": 2}),
        ("a4b2", {"groups": 4, "bottleneck": 2}),
    ],
)
def test_parameters_of_cheap_convolutions(convs, sizes):
    """Every 3x3 convolution of a block is replaced; taps keep their shapes."""
    full, cheap = (
        make_model(ModelConfig(name, norm="batch", resolution=8), 10)
        for name in ("wrn_16_1", f"wrn_16_1_{convs}")
    )
    images = jnp.zeros((1, 8, 8, 3))
    shapes = [jax.eval_shape(x.init, jax.random.key(0), images) for x in (full, cheap)]
    # Widths before and behind the four convolutions of each stage.
    pairs = [(16, 16)] * 4 + [(16, 32)] + [(32, 32)] * 3 + [(32, 64)] + [(64, 64)] * 3
    change = sum(cost(i, o, **sizes) - 9 * i * o for i, o in pairs)
    assert count_parameters(shapes[1]) == count_parameters(shapes[0]) + change < 180_000

    outputs = [
        jax.eval_shape(lambda v, x=x: x.apply(v, images, train=False, rngs=None)[0], v)
        for x, v in zip((full, cheap), shapes, strict=True)
    ]
    assert outputs[0] == outputs[1]


def test_a_depthwise_separable_convolution():
    module = CheapConv(5, 2, "g1", "batch")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    assert params["grouped"]["kernel"].shape == (3, 3, 1, 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + 4 : 2, j : j + 4 : 2] * params["grouped"]["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    )
    want = np.maximum(y / np.sqrt(1 + 1e-5), 0) @ params["expand"]["kernel"][0, 0]
    assert want.shape == (2, 2, 2, 5)
    np.testing.assert_allclose(module.apply(variables, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "convs, expected",
    [
        ("g4x2", "convs: expected gN (N channels a group), aN (N groups), bN"),
        ("g0", "convs: expected gN"),
        ("g3", "convs: expected groups that divide the 16 channels of a convolution"),
        ("a5b2", "convs: expected groups that divide the 8 channels"),
        ("b3", "convs: expected a bottleneck that divides 16 channels"),
    ],
)
def test_cheap_convolutions_that_do_not_divide(convs, expected):
    with pytest.raises(ConfigError) as error:
        make_model(ModelConfig(f"wrn_16_1_{convs}", resolution=8), 10)
    assert str(error.value).startswith(f"model.{expected}")
