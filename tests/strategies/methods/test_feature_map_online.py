"""Online adversarial KD: values, stopped gradients, the cycle of peers, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import from_function
from kdjax.config import ConfigError
from kdjax.strategies.methods.feature_map_online import feature_map_online
from tests.strategies.methods import setting
from tests.strategies.methods.setting import CLASSES, N, cross_entropy, kl


def maps(width, side=2):
    """1x1 convolution of an image, with the tap "stage3", then the mean and a head."""

    def apply(params, x):
        x = x[:, :side, :side] @ params["conv"]
        return x.mean((1, 2)) @ params["head"], {"stage3": x}

    def init(key, x):
        one, two = jax.random.split(key)
        return {
            "conv": jax.random.normal(one, (x.shape[-1], width)),
            "head": jax.random.normal(two, (width, CLASSES)),
        }

    return from_function(apply, init=init)


@pytest.fixture
def batch():
    image = jnp.asarray(setting.draw(N, 2, 2, 3))
    return setting.make_batch(inputs={"image": image})


def critic(params, x):
    """Two 3x3 convolutions with zero padding and leaky ReLU, the mean, a layer."""
    for name in ("layers_0", "layers_2"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        x = bias + sum(
            wide[:, i : i + height, j : j + width] @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )
        x = np.where(x > 0, x, 0.01 * x)
    last = params["layers_5"]
    return (x.mean((1, 2)) @ last["kernel"] + last["bias"])[:, 0]


def test_values(batch):
    networks = {"student": maps(3), "peer": maps(5)}
    strategy = feature_map_online(networks, weight=0.7, adversarial_weight=0.3, width=4)
    params, state = setting.start(strategy, batch)
    values, _ = setting.evaluate(strategy, params, state, batch)
    weights = setting.doubles(params)
    image = np.float64(batch.inputs["image"])
    features = {name: image @ weights[name]["conv"] for name in networks}
    logits = {k: x.mean((1, 2)) @ weights[k]["head"] for k, x in features.items()}
    for name, other in (("student", "peer"), ("peer", "student")):
        fake = features[name] @ weights[f"transfer of {name}"]["kernel"]
        scores = [
            critic(weights[f"critic of {other}"], x) for x in (fake, features[other])
        ]
        expected = cross_entropy(logits[name], batch.labels)
        expected += 0.7 * kl(logits[other], logits[name], 3.0)
        expected += 0.3 * np.square(scores[0] - 1).mean() / 2
        np.testing.assert_allclose(values[name], expected, rtol=2e-5)
        expected = (np.square(scores[0]) + np.square(scores[1] - 1)).mean() / 2
        np.testing.assert_allclose(values[f"critic of {other}"], expected, rtol=2e-5)


def test_a_critic_that_scores_one_half(batch):
    """Least squares at D = 1/2: 1/4 for the critic, 1/8 for a network."""
    strategy = feature_map_online({"student": maps(3), "peer": maps(5)}, width=4)
    params, state = setting.start(strategy, batch)
    params = jax.tree.map(np.zeros_like, params)
    for name in ("student", "peer"):
        params[f"critic of {name}"]["layers_5"]["bias"] = np.float32([0.5])
    values, metrics = setting.evaluate(strategy, params, state, batch)
    for name in ("student", "peer"):
        np.testing.assert_allclose(values[f"critic of {name}"], 0.25)
        np.testing.assert_allclose(metrics[f"against critic of {name}"], 0.125)


def test_gradients_stop(batch):
    """A network moves itself and its transfer, a critic itself alone."""
    strategy = feature_map_online({"student": maps(3), "peer": maps(5)}, width=4)
    moved = {
        name: {k for k, x in slopes.items() if not setting.is_zero(x)}
        for name, slopes in setting.jacobian(strategy, batch).items()
    }
    assert moved == {
        "student": {"student", "transfer of student"},
        "peer": {"peer", "transfer of peer"},
        "critic of peer": {"critic of peer"},
        "critic of student": {"critic of student"},
    }


def test_three_networks_stand_in_a_cycle(batch):
    """Three directed pairs: each follows the critic of the next."""
    networks = {"student": maps(3), "a": maps(4), "b": maps(5)}
    strategy = feature_map_online(networks, width=4)
    made = jax.eval_shape(strategy.init, jax.random.key(0), batch)
    transfers = {k: x["params"] for k, x in made.items() if "transfer" in k}
    kernels = {k: x["kernel"].shape for k, x in transfers.items()}
    assert kernels == {
        "transfer of student": (3, 4),
        "transfer of a": (4, 5),
        "transfer of b": (5, 3),
    }
    assert sum("critic" in name for name in made) == 3


def test_bad_networks(batch):
    with pytest.raises(ConfigError) as caught:
        feature_map_online({"student": maps(3)})
    expected = "networks: expected a peer of the student, as networks.peer, got 'none'"
    assert str(caught.value) == expected
    strategy = feature_map_online({"student": maps(3), "peer": maps(3, side=1)})
    text = r"^model: expected feature maps \(1, 1\) pixels in size, as the next peer"
    with pytest.raises(ConfigError, match=text):
        strategy.init(jax.random.key(0), batch)
    strategy = feature_map_online({"student": maps(3), "peer": maps(3)}, tap="stage4")
    with pytest.raises(ConfigError, match=r"^strategy\.options\.tap: "):
        strategy.init(jax.random.key(0), batch)
