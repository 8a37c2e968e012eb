"""KDGAN: Gumbel samples, values, the critic at equilibrium, shares, bad input."""

import jax
import numpy as np
import pytest

from kdjax.config import ConfigError
from kdjax.strategies.methods.kdgan import kdgan
from kdjax.strategies.sampling import gumbel_softmax
from kdjax.train import turns
from tests.strategies.methods import setting
from tests.strategies.methods.setting import N, cross_entropy, kl, softplus

STEPS = 11


def make(**options):
    wide = setting.network(width=8)
    return kdgan(setting.network(), wide, setting.network(), steps=STEPS, **options)


def test_gumbel_softmax():
    """The mean of many samples approaches the softmax, and one-hot values its top."""
    logits = np.float32([0.5, -1.0, 2.0])
    many = np.tile(logits, (20_000, 1))
    key = jax.random.key(0)
    samples = np.float64(gumbel_softmax(key, many, 0.02))
    expected = np.exp(setting.log_softmax(logits))
    np.testing.assert_allclose(samples.mean(0), expected, atol=0.012)
    np.testing.assert_allclose(samples.sum(-1), 1, rtol=1e-5)
    hard = gumbel_softmax(key, many, 0.02, straight_through=True)
    np.testing.assert_array_equal(np.argmax(hard, -1), np.argmax(samples, -1))
    np.testing.assert_allclose(np.max(hard, -1), 1, rtol=1e-6)


def test_straight_through_has_the_gradient_of_the_relaxed_sample():
    key, logits = jax.random.key(1), setting.draw(5, 3)
    weights = setting.draw(5, 3, seed=2)

    def total(logits, straight):
        return (gumbel_softmax(key, logits, 0.7, straight) * weights).sum()

    one, two = (jax.grad(total)(logits, straight) for straight in (True, False))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_values():
    batch = setting.make_batch()
    strategy = make(share=0.3, student_weight=0.6, large_weight=0.4, label_weight=0.7)
    # Geometric from 1 to 0.1: the middle is the root.
    schedules = strategy.schedules(5)
    np.testing.assert_allclose(schedules["gumbel"], 0.1**0.5, rtol=1e-6)
    params, state = setting.start(strategy, batch)
    key = jax.random.key(1)
    values, _ = jax.jit(strategy.loss)(params, state, batch, schedules, key)

    weights, image = setting.doubles(params), np.float64(batch.inputs["image"])
    logits = {k: image @ x["hidden"] @ x["head"] for k, x in weights.items()}
    scores = logits.pop("critic")
    keys = jax.random.split(key, 5)
    true = scores[np.arange(N), batch.labels]
    fake = {}
    for i, (name, x) in enumerate((k, logits[k]) for k in ("student", "large")):
        noise = np.float64(jax.random.gumbel(keys[3 + i], x.shape, np.float32))
        label = np.exp(setting.log_softmax((x + noise) / 0.1**0.5))
        fake[name] = (label * scores).sum(-1)
    expected = softplus(-true).mean()
    expected += 0.3 * softplus(fake["student"]).mean()
    expected += 0.7 * softplus(fake["large"]).mean()
    np.testing.assert_allclose(values["critic"], expected, rtol=2e-5)
    for name, peer, share, weight in (
        ("student", "large", 0.3, 0.6),
        ("large", "student", 0.7, 0.4),
    ):
        expected = 0.7 * cross_entropy(logits[name], batch.labels)
        expected += share * -softplus(fake[name]).mean()
        expected += weight * kl(logits[peer], logits[name], 3.0)
        np.testing.assert_allclose(values[name], expected, rtol=5e-5)
    assert turns.movers(strategy.turns) == [("critic",), ("student", "large")]


def slopes(strategy, batch):
    params, state = setting.start(strategy, batch)

    def loss(params):
        schedules = strategy.schedules(0)
        return strategy.loss(params, state, batch, schedules, jax.random.key(1))[0]

    return jax.jit(loss)(params), jax.jit(jax.jacrev(loss))(params), params


def test_at_equilibrium_the_critics_loss_is_log_4():
    batch = setting.make_batch()
    strategy = make(share=0.4)
    params, state = setting.start(strategy, batch)
    params["critic"] = jax.tree.map(np.zeros_like, params["critic"])
    values, _ = strategy.loss(
        params, state, batch, strategy.schedules(0), jax.random.key(1)
    )
    np.testing.assert_allclose(values["critic"], np.log(4), rtol=1e-6)


def test_share_1_leaves_the_large_network_out():
    """It then has no gradient from the critic, and peers are constants."""
    batch = setting.make_batch()
    options = {"share": 1.0, "large_weight": 0.0, "label_weight": 0.0}
    values, got, _ = slopes(make(**options), batch)
    assert values["large"] == 0 and setting.is_zero(got["large"])
    assert setting.is_zero(got["student"]["large"])
    assert setting.is_zero(got["critic"]["large"])
    assert not setting.is_zero(got["student"]["student"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
        ({"gumbel_end": 0.0}, "gumbel_end: expected a number above 0, got 0.0"),
        ({"student_steps": 0}, "student_steps: expected at least 1 step, got 0"),
    ],
)
def test_bad_options(given, text):
    with pytest.raises(ConfigError) as caught:
        make(**given)
    assert str(caught.value) == f"strategy.options.{text}"


def test_a_critic_of_other_classes_is_refused():
    other = setting.network(classes=5)
    strategy = kdgan(setting.network(), setting.network(), other, steps=STEPS)
    with pytest.raises(ConfigError) as caught:
        strategy.init(jax.random.key(0), setting.make_batch())
    expected = "expected as many classes as the student (4), got 5"
    assert str(caught.value) == f"networks.critic.model: {expected}"
