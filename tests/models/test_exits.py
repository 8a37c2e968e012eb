"""Early exits: heads, the model with exits, and predictions by confidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import targets
from kdjax.config import ConfigError
from kdjax.core.flops import count_flops
from kdjax.core.types import Output
from kdjax.models import exits, from_function, weights

CLASSES, WIDTH = 3, 4


def chain(layers=3):
    """A network of square matrices; the tap `layer1` is behind the first, and so on."""

    def apply(params, images):
        x, taps = images, {}
        for i in range(1, layers + 1):
            x = jnp.tanh(x @ params[f"layer{i}"])
            taps[f"layer{i}"] = x
        return x @ params["head"], taps

    def init(key, images):
        keys = jax.random.split(key, layers + 1)
        params = {
            f"layer{i}": jax.random.normal(keys[i], (WIDTH, WIDTH))
            for i in range(1, layers + 1)
        }
        return {**params, "head": jax.random.normal(keys[0], (WIDTH, CLASSES))}

    return from_function(apply, init=init)


LINEAR = from_function(
    lambda params, x: x @ params,
    init=lambda key, x: jax.random.normal(key, (x.shape[-1], CLASSES)),
)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(5, WIDTH)), jnp.float32)


@pytest.fixture
def model():
    return exits.with_exits(chain(), ("layer1", "layer2"), LINEAR)


def test_the_exits_read_their_taps(model):
    """`exit2` is the head's map of `layer2`; the network is that without exits."""
    variables = model.init(jax.random.key(1), IMAGES)
    output, state = model.apply(variables, IMAGES, train=True)
    plain = chain()
    own = {"params": variables["params"]["student"]}
    want, _ = plain.apply(own, IMAGES)
    np.testing.assert_array_equal(output.logits, want.logits)
    head = np.asarray(variables["params"]["exit2"], np.float64)
    second = np.asarray(want.taps["layer2"], np.float64) @ head
    np.testing.assert_allclose(output.taps["exit2"], second, rtol=1e-4, atol=1e-6)
    assert sorted(variables["params"]) == ["exit1", "exit2", "student"]
    assert not np.array_equal(*(variables["params"][f"exit{i}"] for i in (1, 2)))
    assert state == {}
    np.testing.assert_array_equal(
        exits.exit_logits(output),
        [output.taps["exit1"], output.taps["exit2"], output.logits],
    )


def test_the_loss_of_an_exit_has_no_gradient_above_it(model):
    variables = model.init(jax.random.key(1), IMAGES)

    def loss(params):
        return jnp.sum(model.apply({"params": params}, IMAGES)[0].taps["exit1"] ** 2)

    grads = jax.grad(loss)(variables["params"])
    assert np.any(grads["student"]["layer1"]) and np.any(grads["exit1"])
    for above in ("layer2", "layer3", "head"):
        assert not np.any(grads["student"][above])
    assert not np.any(grads["exit2"])


def test_flops_of_each_exit(model):
    """An image costs 32 a layer of 4 x 4 and 24 a head of 4 x 3."""
    variables = model.init(jax.random.key(1), IMAGES)
    costs = exits.exit_flops(model, variables, IMAGES[:1])
    assert costs == (32 + 24, 2 * (32 + 24), 3 * (32 + 24))

    def call(x):
        return model.apply(variables, x)[0].logits

    assert costs[-1] == count_flops(call, IMAGES[:1])
    used = count_flops(call, IMAGES[:1], used=[True])
    assert used == costs[-1] - 2 * 24


def test_states_of_heads_move_in_training_alone():
    head = exits.exit_head(CLASSES, 8)
    model = exits.with_exits(maps(), ("stage",), head)
    images = jax.random.normal(jax.random.key(2), (4, 4, 4, 1))
    variables = model.init(jax.random.key(1), images)
    assert variables["params"]["exit1"]["Conv_1"]["kernel"].shape == (3, 3, 4, 8)
    before = {"batch_stats": variables["batch_stats"]}
    _, same = model.apply(variables, images, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, before)
    _, new = model.apply(variables, images, train=True)
    assert jax.tree.structure(new) == jax.tree.structure(before)
    assert np.any(new["batch_stats"]["exit1"]["BatchNorm_0"]["mean"])


def maps():
    """Feature maps of two channels, 4 x 4, and their mean as the embedding."""

    def apply(params, images):
        x = images @ params
        pooled = x.mean((1, 2))
        return pooled, {"stage": x, "embedding": pooled}

    init = lambda key, x: jax.random.normal(key, (x.shape[-1], 2))  # noqa: E731
    return from_function(apply, init=init)


@pytest.mark.parametrize("shape", [(5, 6), (5, 7, 6), (5, 4, 4, 6), (5, 4, 4, 3)])
def test_a_head_fits_features_of_any_rank(shape):
    head = exits.exit_head(CLASSES, 6, norm="group")
    features = jnp.ones(shape)
    output, _ = head.apply(head.init(jax.random.key(0), features), features)
    assert output.logits.shape == (5, CLASSES)
    assert output.taps["embedding"].shape == (5, 6)


LOGITS = jnp.log(
    jnp.array(
        [
            [[0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2]],
            [[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2]],
            [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]],
        ]
    )
)


@pytest.mark.parametrize(
    ("threshold", "want"),
    [(0.0, [0, 0, 0]), (0.45, [0, 1, 0]), (0.7, [0, 1, 2]), (1.0, [2, 2, 2])],
)
def test_the_first_exit_that_is_confident(threshold, want):
    for value in (threshold, jnp.float32(threshold)):
        logits, number = exits.first_confident(LOGITS, value)
        np.testing.assert_array_equal(number, want)
        np.testing.assert_array_equal(logits, LOGITS[np.array(want), np.arange(3)])


def test_certain_exits_and_thresholds_at_the_ends():
    """Probabilities of 1 in floating point do not pass a threshold of 1."""
    certain = jnp.array([[[1e4, 0.0, 0.0]], [[0.0, 1e4, 0.0]]])
    assert exits.first_confident(certain, 1.0)[1] == 1
    assert exits.first_confident(certain, 0.0)[1] == 0
    uniform = jnp.zeros((2, 1, 3))
    assert exits.first_confident(uniform, 0.0)[1] == 0
    one = exits.first_confident(certain[:1], 1.0)[1]
    assert one == 0


def test_the_axis_of_the_classes():
    moved = jnp.moveaxis(LOGITS, 2, 1)
    logits, number = exits.first_confident(moved, 0.7, axis=1)
    np.testing.assert_array_equal(number, [0, 1, 2])
    np.testing.assert_array_equal(logits, exits.first_confident(LOGITS, 0.7)[0].T)


def test_the_ensemble_of_exits():
    output = Output(LOGITS[2], {"exit1": LOGITS[0], "exit2": LOGITS[1], "other": 0})
    mean = jnp.exp(targets.ensemble_logits(exits.exit_logits(output)))
    np.testing.assert_allclose(mean, np.exp(LOGITS).mean(0), rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="^taps: expected at least one tap"):
        exits.with_exits(chain(), (), LINEAR)
    wrong = exits.with_exits(chain(), ("layer9",), LINEAR)
    with pytest.raises(ConfigError, match="^taps: .*'layer9'"):
        wrong.init(jax.random.key(0), IMAGES)
    with pytest.raises(ConfigError, match="^norm: expected batch or group"):
        exits.exit_head(CLASSES, 6, norm="none")
    with pytest.raises(ValueError, match="^threshold: expected a number in"):
        exits.first_confident(LOGITS, 1.5)
    with pytest.raises(ValueError, match="^axis: expected the axis of the classes"):
        exits.first_confident(LOGITS, 0.5, axis=0)


def test_weights_with_exits_come_back(tmp_path):
    """The shortcut of the network's second stage lies one level deeper than alone."""
    block = {"Conv_2": {"kernel": np.full((1, 1, 4, 8), 0.5, np.float32)}}
    networks = {
        "student": {"params": {"ResidualBlock_1": block}},
        "exit1": {"params": {"Dense_0": {"kernel": np.ones((8, 3), np.float32)}}},
    }
    variables = exits.join_exits(networks)
    file = tmp_path / "exits.safetensors"
    weights.save_weights(variables, file)
    jax.tree.map(
        np.testing.assert_array_equal, weights.load_weights(variables, file), variables
    )
    expected = "names as in torch_resnet_cifar, got none of them"
    with pytest.raises(weights.WeightsError, match=expected):
        weights.load_weights(variables, file, names="torch_resnet_cifar")
